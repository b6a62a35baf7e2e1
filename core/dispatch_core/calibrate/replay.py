"""Questions one after another through a policy: what is not served is answered as the log says, and stored.

`replay` finds what `SemanticCache` over a `MemoryStore` would find. Faster only because the neighbours of a question
are the same for every policy, up to which of them were stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate.near import Near, best, near
from dispatch_core.calibrate.progress import Advance, Progress, silent
from dispatch_core.calibrate.vectors import Embedded
from dispatch_core.policy import Learning, Policy
from dispatch_core.types import Entry, Match, Usage

Judge = Callable[[int, int], bool]
"""Whether the answer of one asking would have done for another: both by their number in the stream."""

_STEP = 1_000


@dataclass(frozen=True, slots=True)
class Stream:
    """Askings in their order, each as the entry that it becomes if it is stored.

    ``text_of`` numbers the different texts by their first asking; ``embedded`` and ``near`` have a row for each text.
    """

    entries: Sequence[Entry]
    text_of: Sequence[int]
    embedded: Embedded
    near: Near


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to each asking.

    ``served`` is the asking whose answer was served, -1 for a miss. Those ``exact`` repeat a stored text word for
    word; the policy was not asked. ``wrong`` are those served another answer than theirs. ``seconds`` is the time of
    each decision, if it was taken.
    """

    served: NDArray[np.int32]
    exact: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    seconds: Sequence[float] = ()

    @property
    def semantic(self) -> NDArray[np.bool_]:
        """The policy's hits."""
        return (self.served >= 0) & ~self.exact


def numbered(texts: Sequence[str]) -> tuple[list[int], list[str]]:
    """For each text the number of it among the different ones, and these."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text, len(numbers)) for text in texts], list(numbers)


def stream(
    questions: Sequence[str], answers: Sequence[str], embedded: Embedded, *, progress: Progress = silent
) -> Stream:
    """``embedded`` has a row for each different question, in the order of their first asking."""
    text_of, _ = numbered(questions)
    entries = [
        Entry(str(number), "", "", text, answer.encode("utf-8", "surrogatepass"), Usage(), 0.0)
        for number, (text, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    again = np.bincount(np.array(text_of, dtype=np.int64), minlength=len(embedded.vectors)) > 1
    return Stream(entries, text_of, embedded, near(embedded.vectors, again, progress))


def same_payload(entries: Sequence[Entry]) -> Judge:
    return lambda asked, served: entries[asked].payload == entries[served].payload


def replay(
    stream: Stream,
    policy: Policy,
    right: Judge,
    advance: Advance = lambda more: None,
    *,
    clock: Callable[[], float] | None = None,
) -> Outcome:
    """``right`` says whether what was served is the answer of the question asked. ``clock`` times the decisions."""
    asked_of = len(stream.entries)
    served = np.full(asked_of, -1, dtype=np.int32)
    exact, wrong = np.zeros(asked_of, dtype=np.bool_), np.zeros(asked_of, dtype=np.bool_)
    seconds = []
    kept = _Kept(stream)
    for asked, text in enumerate(stream.text_of):
        hit = kept.answer_of[text]
        if hit >= 0:
            exact[asked] = True
        elif stream.embedded.readable[text]:
            found = kept.search(text, policy.neighbours)
            started = clock() if clock else 0.0
            decision = policy.decide(stream.entries[asked].text, found)
            if clock:
                seconds.append(clock() - started)
            if decision.hit is not None:
                hit = int(decision.hit.entry.id)
            elif isinstance(policy, Learning):
                policy.learn(decision, stream.entries[asked])
        if hit < 0:
            kept.store(text, asked)
        else:
            served[asked] = hit
            wrong[asked] = not right(asked, hit)
        if asked % _STEP == _STEP - 1:
            advance(_STEP)
    advance(asked_of % _STEP)
    return Outcome(served, exact, wrong, seconds)


class _Kept:
    """Which texts are stored, and with the answer of which asking; -1 for none."""

    def __init__(self, stream: Stream) -> None:
        texts = len(stream.embedded.vectors)
        self.answer_of = [-1] * texts
        self._stream = stream
        self._findable = [False] * texts
        self._mask = np.zeros(texts, dtype=np.bool_)
        self._count = 0

    def store(self, text: int, asked: int) -> None:
        self.answer_of[text] = asked
        if self._stream.embedded.readable[text]:
            self._findable[text] = True
            self._mask[text] = True
            self._count += 1

    def search(self, text: int, limit: int) -> list[Match]:
        rows, scores, cutoff = self._stream.near.of(text)
        limit = min(limit, self._count)
        found: list[tuple[int, float]] = []
        for row, score in zip(rows, scores, strict=True):
            if len(found) == limit or score < cutoff:
                break
            if self._findable[row]:
                found.append((row, score))
        if len(found) < limit:
            # Nearly all of its neighbours were hits themselves: look at everything.
            kept = np.flatnonzero(self._mask)
            vectors = self._stream.embedded.vectors
            every = np.clip(vectors[kept] @ vectors[text], -1.0, 1.0)
            found = [(int(kept[row]), float(every[row])) for row in best(every, limit)]
        entries, answer_of = self._stream.entries, self.answer_of
        return [Match(entries[answer_of[row]], score) for row, score in found]
