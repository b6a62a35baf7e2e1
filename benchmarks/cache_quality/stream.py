"""Questions one after another through a policy: what is not served is answered rightly and stored.

`replay` finds what `SemanticCache` over a `MemoryStore` would find, and `differences` asks the real ones. Faster only
because the neighbours of a question are the same for every policy, up to which of them were stored.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from benchmarks.cache_quality.questions import Corpus
from benchmarks.cache_quality.vectors import Embedded
from dispatch_core import Entry, Fit, Match, MemoryStore, Miss, Policy, Query, SemanticCache, Usage
from dispatch_core.types import Matrix, Vector

_REMEMBERED = 128
_BLOCK = 256
_SAME = 1e-5


@dataclass(frozen=True, slots=True)
class Stream:
    """Questions in the order of asking, as the entries that they become; for each, the nearest of those before."""

    entries: Sequence[Entry]
    embedded: Embedded
    near: Sequence[tuple[Sequence[int], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to the questions of a stream. ``seconds`` are processor time of each decision."""

    served: Sequence[int | None]
    wrong: int
    seconds: Sequence[float]

    @property
    def hits(self) -> int:
        return sum(entry is not None for entry in self.served)


def stream(corpus: Corpus, embedded: Embedded, *, seed: int, limit: int) -> Stream:
    """At most ``limit`` questions in a random order."""
    order = random.Random(seed).sample(range(len(corpus.texts)), min(limit, len(corpus.texts)))
    entries = [
        Entry(str(number), "", "", corpus.texts[row], corpus.answers[row].encode(), Usage(), 0.0)
        for number, row in enumerate(order)
    ]
    vectors = embedded.vectors[order]
    return Stream(entries, Embedded(vectors, embedded.readable[order]), list(_near(vectors)))


def replay(stream: Stream, policy: Policy) -> Outcome:
    entries = stream.entries
    stored = [False] * len(entries)
    served: list[int | None] = []
    seconds = []
    for asked, entry in enumerate(entries):
        hit = None
        if stream.embedded.readable[asked]:
            found = _search(stream, asked, stored, policy.neighbours)
            started = time.thread_time()
            hit = policy.decide(entry.text, found).hit
            seconds.append(time.thread_time() - started)
            stored[asked] = hit is None
        served.append(None if hit is None else int(hit.entry.id))
    wrong = sum(hit is not None and entries[hit].payload != entries[n].payload for n, hit in enumerate(served))
    return Outcome(served, wrong, seconds)


def differences(stream: Stream, policy: Policy, outcome: Outcome, sample: int) -> list[int]:
    """Which of the first questions a real cache answers otherwise than `replay` did."""
    cache = SemanticCache(_Known(stream), MemoryStore(), policy=policy)
    differ = []
    for number, entry in enumerate(stream.entries[:sample]):
        found = cache.lookup(Query(entry.text))
        if not isinstance(found, Match):
            cache.store(found, entry.payload)
        if not _alike(stream, number, outcome.served[number], found):
            differ.append(number)
    return differ


def _alike(stream: Stream, asked: int, served: int | None, found: Match | Miss) -> bool:
    """The same decision; of several entries at one score, either may be the one that is served."""
    if served is None or not isinstance(found, Match):
        return served is None and not isinstance(found, Match)
    vectors = stream.embedded.vectors
    return abs(float(vectors[served] @ vectors[asked]) - found.score) < _SAME


def _near(vectors: Matrix) -> Iterator[tuple[list[int], list[float]]]:
    """For every row the nearest rows before it, best first."""
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors[: start + _BLOCK].T
        for row, scores in enumerate(block, start):
            best = _best(scores[:row], _REMEMBERED)
            yield best, np.clip(scores[best], -1.0, 1.0).tolist()


def _best(scores: Vector, limit: int) -> list[int]:
    rows = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    best: list[int] = rows[np.argsort(-scores[rows], kind="stable")].tolist()
    return best


def _search(stream: Stream, asked: int, stored: Sequence[bool], limit: int) -> list[Match]:
    rows, scores = stream.near[asked]
    hits = list(islice(((row, score) for row, score in zip(rows, scores, strict=True) if stored[row]), limit))
    if len(hits) < limit and len(rows) < asked:
        # Nearly all of its neighbours were hits themselves: look at everything.
        kept = np.flatnonzero(stored[:asked])
        every = stream.embedded.vectors[kept] @ stream.embedded.vectors[asked]
        hits = [(int(kept[row]), float(np.clip(every[row], -1.0, 1.0))) for row in _best(every, limit)]
    return [Match(stream.entries[row], score) for row, score in hits]


class _Known:
    """An `Embedder` that looks up what was embedded before."""

    model = "known"
    max_tokens = 1

    def __init__(self, stream: Stream) -> None:
        self._rows = {entry.text: row for row, entry in enumerate(stream.entries)}
        self._embedded = stream.embedded
        self.dims = stream.embedded.vectors.shape[1]

    def embed(self, texts: Sequence[str]) -> Matrix:
        return self._embedded.vectors[[self._rows[text] for text in texts]]

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return self.embed(texts)

    def fit(self, text: str) -> Fit:
        return Fit(tokens=1 if self._embedded.readable[self._rows[text]] else self.max_tokens + 1)

    async def afit(self, text: str) -> Fit:
        return self.fit(text)
