"""A hundred askers on one event loop: exact hits through Redis, hits by meaning, and how long the loop is held."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, closing

import redis
import redis.asyncio

from benchmarks.cache_speed.inprocess import each
from benchmarks.cache_speed.measure import Arm
from benchmarks.cache_speed.world import World, query, unread
from dispatch_core import RedisNearStore, SemanticCache

ASKERS = 100
_TICK = 0.001
_KEY = "dispatch-bench:plain:{}"

Ask = Callable[[str], Awaitable[object]]


async def together(ask: Ask, texts: Sequence[str], calls: int) -> None:
    """So many calls by the askers, each of whom asks again as soon as he has his answer."""
    waiting = itertools.islice(itertools.cycle(texts), calls)

    async def asker() -> None:
        for text in waiting:
            await ask(text)

    await asyncio.gather(*(asker() for _ in range(min(ASKERS, calls))))


def through_redis(world: World, url: str, calls: int, many: int, until: ExitStack) -> Iterator[Arm]:
    """One asker and a hundred, next to GETs of the same payload by redis-py; connected ``until`` that ends."""
    store = until.enter_context(closing(RedisNearStore(url)))
    cache = world.cache(store, len(world.stored))
    with redis.Redis.from_url(url) as filler:
        for text, payload in zip(world.stored, world.payloads, strict=True):
            filler.set(_KEY.format(text), payload)
    client = until.enter_context(redis.Redis.from_url(url))
    yield Arm("redis-py GET", each(lambda text: client.get(_KEY.format(text)), world.stored), calls)
    yield Arm("exact hit through Redis", each(lambda text: cache.lookup(query(text)), world.stored), calls)

    def plain(calls: int) -> None:
        async def ask() -> None:
            async with redis.asyncio.Redis.from_url(url, max_connections=ASKERS) as client:
                await together(lambda text: client.get(_KEY.format(text)), world.stored, calls)

        asyncio.run(ask())

    def ours(calls: int) -> None:
        async def ask() -> None:
            # Connections belong to their loop.
            async with aclosing(SemanticCache(world.embedder, RedisNearStore(url))) as cache:
                await together(lambda text: cache.alookup(query(text)), world.stored, calls)

        asyncio.run(ask())

    yield Arm("100 askers, redis.asyncio GET", plain, many)
    yield Arm("100 askers, exact hit through Redis", ours, many)


def by_meaning(cache: SemanticCache, asked: Sequence[str], calls: int, lags: list[float]) -> Arm:
    """Hits by meaning. To ``lags`` go the seconds by which a timer of the loop came late, once a millisecond."""

    async def watch() -> None:
        while True:
            due = time.perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            lags.append(time.perf_counter() - due)

    async def ask(calls: int) -> None:
        watcher = asyncio.create_task(watch())
        await together(lambda text: cache.alookup(query(unread(text))), asked, calls)
        watcher.cancel()

    return Arm("100 askers, hit by meaning", lambda calls: asyncio.run(ask(calls)), calls)
