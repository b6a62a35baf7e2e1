"""A corpus asked in a random order, and the check that a replay of it decides like a real cache."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.cache_quality.questions import Corpus
from dispatch_core import Fit, Match, MemoryStore, Miss, Policy, Query, SemanticCache
from dispatch_core.calibrate.replay import Outcome, Stream
from dispatch_core.calibrate.replay import stream as asked
from dispatch_core.calibrate.vectors import Embedded
from dispatch_core.types import Matrix

_SAME = 1e-5


def stream(corpus: Corpus, embedded: Embedded, *, seed: int, limit: int) -> Stream:
    """At most ``limit`` questions in a random order."""
    order = random.Random(seed).sample(range(len(corpus.texts)), min(limit, len(corpus.texts)))
    texts, answers = ([every[row] for row in order] for every in (corpus.texts, corpus.answers))
    return asked(texts, answers, Embedded(embedded.vectors[order], embedded.readable[order]))


def differences(stream: Stream, policy: Policy, outcome: Outcome, sample: int) -> list[int]:
    """Which of the first questions a real cache answers otherwise than the replay did."""
    cache = SemanticCache(_Known(stream), MemoryStore(), policy=policy)
    differ = []
    for number, entry in enumerate(stream.entries[:sample]):
        found = cache.lookup(Query(entry.text))
        if not isinstance(found, Match):
            cache.store(found, entry.payload)
        if not _alike(stream, number, outcome, found):
            differ.append(number)
    return differ


def _alike(stream: Stream, asked: int, outcome: Outcome, found: Match | Miss) -> bool:
    """The same decision; of several entries at one score, either may be the one that is served."""
    served = int(outcome.served[asked])
    if served < 0 or not isinstance(found, Match):
        return served < 0 and not isinstance(found, Match)
    if outcome.exact[asked] or found.exact:
        return bool(outcome.exact[asked]) and found.exact and found.entry.payload == stream.entries[served].payload
    vectors = stream.embedded.vectors
    score = float(vectors[stream.text_of[served]] @ vectors[stream.text_of[asked]])
    return abs(score - found.score) < _SAME


class _Known:
    """An `Embedder` that looks up what was embedded before."""

    model = "known"
    max_tokens = 1

    def __init__(self, stream: Stream) -> None:
        self._rows = {entry.text: row for entry, row in zip(stream.entries, stream.text_of, strict=True)}
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
