"""Contestants that need no server: the embedding alone, hits and stores around it, the article's code, search."""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.cache_speed.measure import Arm
from benchmarks.cache_speed.world import NAMESPACE, SCOPE, Stub, World, memory_of, near, query, unread
from dispatch_core import Dispatcher, MemoryStore, Query, SemanticCache, SentenceTransformerEmbedder, VectorStore
from dispatch_core.types import Vector

_WORDINGS = 2_000


def each(call: Callable[[Any], object], things: Sequence[Any]) -> Callable[[int], None]:
    """Does calls on the things in turn, again from the first one in each round."""

    def run(calls: int) -> None:
        for thing in itertools.islice(itertools.cycle(things), calls):
            call(thing)

    return run


def asker(cache: SemanticCache) -> Callable[[str], object]:
    return lambda text: cache.lookup(query(text))


def newcomer(cache: SemanticCache) -> Callable[[str], object]:
    """Asks in words that were not read before."""
    return lambda text: cache.lookup(query(unread(text)))


def meaning(world: World, stores: Sequence[tuple[str, VectorStore, int]], calls: int) -> Iterator[Arm]:
    """A hit by meaning and the storing of an answer, next to the embedding of the same texts, and without it."""
    first = world.cache(stores[0][1], 0)
    asked = world.questions(first)
    yield Arm("embedding", each(lambda text: world.embedder.embed([unread(text)]), asked), calls)
    for title, store, _ in stores:
        yield Arm(f"hit by meaning, {title}", each(newcomer(world.cache(store, 0)), asked), calls)
    numbers = itertools.count()

    def store_one(text: str) -> None:
        # New words each time: a lookup that misses, and the store of its answer.
        miss = first.unseen(Query(f"{text} ({next(numbers)})", SCOPE + "new", NAMESPACE))
        first.store(miss, world.payloads[0])

    yield Arm("store", each(store_one, asked), calls)
    stubbed = world.cache(stores[0][1], 0, embedder=Stub(world.embedder, asked))
    yield Arm("hit by meaning, stubbed", each(newcomer(stubbed), asked), calls * 4)
    yield article(world, stores[0][2], asked, calls)


def article(world: World, entries: int, asked: Sequence[str], calls: int) -> Arm:
    """The article's code without a server: encode, compare with every vector, take the nearest above 0.92."""
    encoder = SentenceTransformerEmbedder()
    encoder.load()
    encode: Any = encoder._encoder.encode
    kept = np.ascontiguousarray(world.vectors[:entries])
    answers = [world.payloads[row % len(world.payloads)] for row in range(entries)]

    def ask(text: str) -> bytes | None:
        scores = kept @ encode(unread(text), normalize_embeddings=True, show_progress_bar=False)
        best = int(scores.argmax())
        return answers[best] if scores[best] >= 0.92 else None

    return Arm("article's code, in process", each(ask, asked), calls)


def exact(world: World, store: VectorStore, calls: int) -> Iterator[Arm]:
    """Hits on the same words: of many questions, each asked before, in objects that are new each time."""
    cache = world.cache(store, 0)
    dispatcher = Dispatcher(cache)
    texts = [world.entry(cache, number)[0].text for number in range(min(len(world.vectors), _WORDINGS))]

    async def ask_async(calls: int) -> None:
        for text in itertools.islice(itertools.cycle(texts), calls):
            await dispatcher.abegin(query(text))

    def ask_all() -> None:
        each(asker(cache), texts)(len(texts))

    yield Arm("exact hit, lookup", each(asker(cache), texts), calls, ask_all)
    yield Arm("exact hit, begin", each(lambda text: dispatcher.begin(query(text)), texts), calls, ask_all)
    yield Arm("exact hit, abegin", lambda calls: asyncio.run(ask_async(calls)), calls, ask_all)


def search(stores: Sequence[tuple[str, MemoryStore, int]], world: World, calls: int) -> Iterator[Arm]:
    """The eight nearest, and the floor: one product of a matrix with a vector, by numpy."""
    scope = world.cache(stores[0][1], 0).unseen(query("")).scope
    for title, store, entries in stores:
        asked = near(world.vectors[:entries], 200)

        def find(vector: Vector, store: MemoryStore = store) -> object:
            return store.search(vector, scope=scope, limit=8, now=0.0)

        yield Arm(f"search, {title}", each(find, list(asked)), calls)
        columns = np.asfortranarray(world.vectors[:entries])
        yield Arm(f"numpy floor, {title}", each(columns.dot, list(asked)), calls)


def recall(store: MemoryStore, world: World, entries: int, count: int) -> float:
    """The share of near duplicates whose nearest stored vector is found first."""
    scope = world.cache(store, 0).unseen(query("")).scope
    kept = world.vectors[:entries]
    found = 0
    for vector in near(kept, count, seed=2):
        (best,) = store.search(vector, scope=scope, limit=1, now=0.0)
        found += best.score >= float((kept @ vector).max()) - 1e-5
    return found / count


def bytes_per_entry(world: World, entries: int) -> float:
    """What a `MemoryStore` holds for an entry, its vector included, beside the entry that it was given."""
    cache = world.cache(MemoryStore(), 0)
    given = [world.entry(cache, number) for number in range(entries)]
    tracemalloc.start()
    try:
        store = MemoryStore()
        for entry, vector in given:
            store.put(entry, vector)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held / len(store)


def stores_of(world: World, sizes: Sequence[int]) -> list[tuple[str, MemoryStore, int]]:
    return [(f"{entries:,}", memory_of(world, entries), entries) for entries in sizes]
