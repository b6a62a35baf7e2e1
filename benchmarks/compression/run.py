"""Each question through each way of shortening its prompt: what is left, what survives, what it took."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.compression.prompts import Question
from dispatch_core import Compressed, Compressor, Extractive, Fit, Message
from dispatch_core.compress import FRAMES, Weights
from dispatch_core.compress.layout import estimated, laid_out
from dispatch_core.compress.units import joined, units_of
from dispatch_core.ports import Embedder
from dispatch_core.types import Matrix


class TimedEmbedder:
    """Adds up the seconds that another embedder takes, for they are counted apart."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.model, self.dims, self.max_tokens = embedder.model, embedder.dims, embedder.max_tokens
        self.seconds = 0.0

    def embed(self, texts: Sequence[str]) -> Matrix:
        started = time.thread_time()
        try:
            return self._embedder.embed(texts)
        finally:
            self.seconds += time.thread_time() - started

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return self.embed(texts)

    def fit(self, text: str) -> Fit:
        return self._embedder.fit(text)

    async def afit(self, text: str) -> Fit:
        return self.fit(text)


class Random:
    """What chance keeps: sentences in random order until the budget is full."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return _kept(messages, budget or 0, lambda count: self._rng.sample(range(count), count))

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return self.compress(messages, budget)


class First:
    """What a cut keeps: the sentences from the beginning until the budget is full."""

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return _kept(messages, budget or 0, range)

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return self.compress(messages, budget)


def _kept(messages: Sequence[Message], budget: int, order: Callable[[int], Iterable[int]]) -> Compressed:
    layout = laid_out(messages, FRAMES)
    number = layout.contexts()[0]
    before, units = units_of(layout.stretches[number].text)
    size = sum(estimated(message.text) for message in messages)
    room = budget - size + sum(estimated(unit.text) for unit in units)
    kept = [False] * len(units)
    for one in order(len(units)):
        room -= estimated(units[one].text)
        if room < 0:
            break
        kept[one] = True
    left = layout.filled({number: joined(before, units, kept)})
    return Compressed(left, size, sum(estimated(message.text) for message in left))


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one budget: shares of questions and tokens, and milliseconds of a prompt beyond its embedding."""

    name: str
    share: float
    asked: int
    survived: int
    saved: float
    milliseconds: float
    embedding: float
    lost: tuple[Question, ...]


def arms(embedder: TimedEmbedder, *, parts: bool) -> dict[str, Compressor]:
    """What is compared; with ``parts``, also the extractive one without some of what it goes by."""
    without = {
        "  without words in common": Weights(words=0.0),
        "  without diversity": Weights(diversity=0.0),
        "  cosine alone": Weights(words=0.0, beside=0.0, diversity=0.0),
    }
    return {
        "extractive": Extractive(embedder),
        **({name: Extractive(embedder, weights=weights) for name, weights in without.items()} if parts else {}),
        "the first sentences": First(),
        "random sentences": Random(),
    }


def measured(
    name: str, arm: Compressor, embedder: TimedEmbedder, asked: Sequence[Question], share: float, *, repeats: int = 1
) -> Row:
    """Processor time of this thread: of ``repeats`` runs of a question the fastest, of all questions the median."""
    lost, saved, took, embedding = [], [], [], []
    for question in asked:
        messages = question.messages()
        budget = round(share * sum(estimated(message.text) for message in messages))
        spent = []
        for _ in range(repeats):
            embedder.seconds = 0.0
            started = time.thread_time()
            done = arm.compress(messages, budget)
            spent.append((time.thread_time() - started - embedder.seconds, embedder.seconds))
        took.append(min(beyond for beyond, _ in spent))
        embedding.append(max(within for _, within in spent))
        saved.append(done.saved)
        if question.line not in done.messages[1].text or question.text not in done.messages[1].text:
            lost.append(question)
    count = len(asked)
    return Row(
        name, share, count, count - len(lost), sum(saved) / count, 1e3 * median(took), max(embedding), tuple(lost)
    )


def floor(question: Question, vectors: Matrix, repeats: int = 20) -> float:
    """Milliseconds of the least that any such compressor does on this machine: sentences by one regular expression,
    their words, and one product of as many vectors."""
    import re

    ends, words = re.compile(r"(?<=[.!?。])\s*"), re.compile(r"\w+")
    took = []
    for _ in range(repeats):
        started = time.thread_time()
        sentences = ends.split(question.context)
        held = [frozenset(words.findall(sentence.casefold())) for sentence in sentences]
        similar = vectors[: len(sentences)] @ vectors[: len(sentences)].T
        _ = np.argsort(-similar[0]), len(held)
        took.append(time.thread_time() - started)
    return 1e3 * min(took)
