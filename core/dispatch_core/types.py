"""Frozen values that travel between the parts of the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
"""One embedding: shape ``(dims,)``, unit length."""

Matrix: TypeAlias = NDArray[np.float32]
"""Several embeddings: shape ``(texts, dims)``, every row of unit length."""


def setters(cls: Any) -> Iterator[Callable[[Any, Any], None]]:
    """What sets each field of a class with slots, in their order: for its own ``__init__``, past what is frozen."""
    return (getattr(cls, field.name).__set__ for field in fields(cls))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one answer cost, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


@dataclass(frozen=True, slots=True, init=False)
class Query:
    """A question in the three parts of its identity, which never mix.

    ``text`` is compared by meaning when ``semantic`` is true. ``scope`` is a digest of everything that must
    match exactly: model, parameters, system prompt, earlier turns, tools, output schema, retrieved context.
    ``namespace`` is the tenant or application; it is digested before it reaches a store.

    ``tags`` name what the answer will rest on: all that carries a tag can be forgotten together. ``sources`` are
    names and versions of the same, which must match exactly: an answer from an older version is not found any more.
    """

    text: str
    scope: str = ""
    namespace: str = ""
    semantic: bool = True
    tags: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()

    # One is made for every call: the setters of its slots take half the time of the ``__init__`` of a frozen class.
    def __init__(  # noqa: PLR0917 its fields in their order
        self,
        text: str,
        scope: str = "",
        namespace: str = "",
        semantic: bool = True,
        tags: tuple[str, ...] = (),
        sources: tuple[tuple[str, str], ...] = (),
    ) -> None:
        _text(self, text)
        _scope(self, scope)
        _namespace(self, namespace)
        _semantic(self, semantic)
        _tags(self, tags)
        _sources(self, sources)


_text, _scope, _namespace, _semantic, _tags, _sources = setters(Query)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a text fits an encoder: its length in tokens and how many of them the encoder does not know."""

    tokens: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. ``payload`` belongs to the front that wrote it; all times are in Unix seconds.

    From ``stale`` on, the entry is served only while somebody refreshes it; from ``expires`` on, never. ``tags`` name
    what the answer rests on, sorted and each once: all that rests on it can be forgotten together. A ``tombstone``
    has no answer: it takes its place in a search like any entry, and means "no".
    """

    id: str
    namespace: str
    scope: str
    text: str
    payload: bytes
    usage: Usage
    created: float
    expires: float | None = None
    stale: float | None = None
    tags: tuple[str, ...] = ()
    tombstone: bool = False

    def fresh(self, now: float) -> bool:
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class Memory:
    """What a store's entries take, in bytes: of this process, and of a server or file where that was asked for.

    ``entries`` are those that this process knows of: with a mirror of vectors, the entries that have one.
    """

    entries: int
    process: int
    server: int | None = None

    @property
    def per_entry(self) -> float:
        """Bytes of this process for one entry; 0 without any."""
        return self.process / self.entries if self.entries else 0.0


@dataclass(frozen=True, slots=True, init=False)
class Match:
    """A stored entry and how close it is: ``score`` is the cosine in [−1, 1], higher is closer.

    ``hit_id`` names a hit that was served, so that it can be taken back.
    """

    entry: Entry
    score: float
    exact: bool = False
    hit_id: str = ""

    def __init__(self, entry: Entry, score: float, exact: bool = False, hit_id: str = "") -> None:
        _entry(self, entry)
        _score(self, score)
        _exact(self, exact)
        _hit_id(self, hit_id)

    @property
    def kind(self) -> str:
        return "exact" if self.exact else "semantic"

    def note(self) -> dict[str, Any]:
        """What an answer from the cache says about itself, in JSON's terms.

        No name of it is one that token counters look for: they would book the hit as spending.
        """
        usage = self.entry.usage
        return {
            "cache_hit": self.kind,
            "similarity": round(self.score, 4),
            "saved_usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
            **({"hit_id": self.hit_id} if self.hit_id else {}),
        }


_entry, _score, _exact, _hit_id = setters(Match)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy makes of the nearest entries.

    ``hit`` is the entry to serve or None, ``reason`` says why, ``nearest`` is the best candidate seen.
    ``candidate`` is what a less strict setting would serve, ``level`` the strictest threshold that still serves it
    and ``path`` the way it got there; a hit is its own candidate. ``signals`` are the numbers behind the decision.
    """

    hit: Match | None
    reason: str
    nearest: Match | None = None
    candidate: Match | None = None
    level: float = -1.0
    path: str = ""
    signals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Miss:
    """No stored answer will do. Carries the vector, so that storing the answer embeds nothing again.

    ``vector`` is None for a question that is matched exactly or whose lookup failed; ``reason`` says which,
    or why the nearest neighbour was refused. ``decision`` is the policy's, if it was asked.
    """

    query: Query
    id: str
    scope: str
    reason: str
    vector: Vector | None = field(default=None, repr=False)
    decision: Decision | None = None

    @property
    def nearest(self) -> Match | None:
        """The best candidate that was seen."""
        return None if self.decision is None else self.decision.nearest


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call is expected to charge: one request and these tokens.

    ``weight`` is the uncorrected size of the prompt that ``input_tokens`` was estimated from (0 if it was counted)
    and ``model`` names the tokenizer: with both, a limiter learns the true ratio from the usage that comes back.
    ``guess`` says that nobody bounded the answer: ``output_tokens`` is what answers usually have.
    """

    input_tokens: int
    output_tokens: int = 0
    model: str = ""
    weight: float = 0.0
    guess: bool = False

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a provider's response said about its limits. ``retry_after`` is in seconds.

    ``dimension`` is the limit that it named: "requests", "tokens", "input_tokens", ...
    """

    status: int
    retry_after: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    dimension: str | None = None

    @property
    def refused(self) -> bool:
        """Whether the call was refused for its rate: 429, 529, or a 503 that says when to come back."""
        return self.status in (429, 529) or (self.status == 503 and self.retry_after is not None)
