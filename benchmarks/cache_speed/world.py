"""What is stored and what is asked: this project's own questions, among as many others as wanted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dispatch_core
from dispatch_core import (
    Embedder,
    EmbeddingError,
    Entry,
    Match,
    MemoryStore,
    Query,
    SemanticCache,
    Usage,
    VectorStore,
)
from dispatch_core.types import Fit, Matrix, Vector

SCOPE = "5c0be" * 8
NAMESPACE = "shop"
_DATA = Path(__file__).parents[1] / "data"
_NOISE = 0.6


class Stub:
    """Vectors that are known already: what is left of a lookup is the cache's own."""

    def __init__(self, wrapped: Embedder, texts: Sequence[str]) -> None:
        self.model, self.dims, self.max_tokens = wrapped.model, wrapped.dims, wrapped.max_tokens
        self._vectors = {text: wrapped.embed([text]) for text in texts}  # by the words alone, see `unread`
        self._other = wrapped.embed(["another"])

    def embed(self, texts: Sequence[str]) -> Matrix:
        (text,) = texts
        return self._vectors.get(" ".join(text.split()), self._other)

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return self.embed(texts)

    def fit(self, text: str) -> Fit:
        return Fit(tokens=12)

    async def afit(self, text: str) -> Fit:
        return Fit(tokens=12)


@dataclass(frozen=True, slots=True)
class World:
    """``stored`` questions with their answers' payloads and vectors, and others that are ``asked`` in their place.

    ``vectors`` has a row for each stored question, and further rows for others.
    """

    embedder: Embedder
    stored: Sequence[str]
    payloads: Sequence[bytes]
    asked: Sequence[str]
    vectors: Matrix

    def cache(self, store: VectorStore, entries: int, *, embedder: Embedder | None = None) -> SemanticCache:
        """A cache of the default policy, with so many entries in its store."""
        cache = SemanticCache(embedder or self.embedder, store)
        for number in range(entries):
            store.put(*self.entry(cache, number))
        return cache

    def entry(self, cache: SemanticCache, number: int) -> tuple[Entry, Vector]:
        first = number % len(self.stored)
        text = self.stored[first] if number < len(self.stored) else f"{self.stored[first]} #{number}"
        miss = cache.unseen(query(text))
        return cache.entry(miss, self.payloads[first], Usage(40, 60)), self.vectors[number]

    def questions(self, cache: SemanticCache) -> list[str]:
        """Those of the asked that the cache answers by meaning."""
        found = [(text, cache.lookup(query(text))) for text in self.asked]
        hits = [text for text, match in found if isinstance(match, Match) and not match.exact]
        if not hits:
            raise SystemExit("the cache answers none of the questions by meaning")
        return hits


_spellings = itertools.count()


def unread(text: str) -> str:
    """The text with other gaps between its words each time: for an encoder the same, for every memo a new one.

    So a question is asked for the first time, by words that were met before and of entries that were.
    """
    number, parts = next(_spellings), []
    for word in text.split():
        number, gap = divmod(number, 4)
        parts.append(word + " " * gap)
    return " ".join(parts).rstrip()


def query(text: str) -> Query:
    return Query(text, SCOPE, NAMESPACE)


def default_embedder() -> tuple[str, Embedder]:
    """ONNX where it is there, else sentence-transformers; and the name of what it is."""
    onnx = getattr(dispatch_core, "OnnxEmbedder", None)
    if onnx is not None:
        embedder: Embedder = onnx()
        try:
            embedder.embed(["warm up"])
        except EmbeddingError as error:
            print(f"{error}\n")
        else:
            return "ONNX", embedder
    return "sentence-transformers", dispatch_core.SentenceTransformerEmbedder()


def made(embedder: Embedder, rows: int, *, limit: int | None = None, seed: int = 1) -> World:
    """At most ``limit`` questions, and vectors for as many entries as ``rows`` says."""
    answers = {line["group"]: line["answer"] for line in _lines("answers.jsonl")}
    english = [line for line in _lines("questions.jsonl") if line["lang"] == "en" and line["group"] in answers]
    firsts = [line for line in english if line["kind"] == "first"][:limit]
    groups = {line["group"] for line in firsts}
    others = [line["text"] for line in english if line["kind"] != "first" and line["group"] in groups]
    stored = [line["text"] for line in firsts]
    payloads = [json.dumps({"text": answers[line["group"]]}).encode() for line in firsts]
    real = np.concatenate([embedder.embed([text]) for text in stored])
    return World(embedder, stored, payloads, others, np.concatenate([real, _mixtures(real, rows, seed)])[:rows])


def near(vectors: Matrix, count: int, *, seed: int = 1) -> Matrix:
    """Vectors at a cosine of 0.92 to 0.99 to stored ones."""
    chance = np.random.default_rng(seed)
    rows = chance.integers(len(vectors), size=count)
    noise = chance.standard_normal((count, vectors.shape[1])).astype(np.float32)
    noise -= (noise * vectors[rows]).sum(1, keepdims=True) * vectors[rows]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosines = chance.uniform(0.92, 0.99, (count, 1)).astype(np.float32)
    turned: Matrix = cosines * vectors[rows] + np.sqrt(1.0 - cosines**2) * noise
    return turned


def _mixtures(real: Matrix, rows: int, seed: int) -> Matrix:
    """As close to each other as questions of one subject are."""
    chance = np.random.default_rng(seed)
    mixed = np.empty((rows, real.shape[1]), np.float32)
    for start in range(0, rows, 10_000):
        part = mixed[start : start + 10_000]
        part[:] = real[chance.integers(len(real), size=len(part))] + real[chance.integers(len(real), size=len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        noise = chance.standard_normal(part.shape).astype(np.float32)
        part += _NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return mixed


def _lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_DATA / name).read_text("utf-8").splitlines()]


def memory_of(world: World, entries: int) -> MemoryStore:
    store = MemoryStore(max_entries=max(entries + 10_000, 100_000))
    world.cache(store, entries)
    return store
