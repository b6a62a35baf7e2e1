"""How often a Redis store goes to its server."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import redis
from fakes import Either, made, unit
from places import EAST, HERE, NORTH, NOW, Place, found, place_of
from servers import REDIS_LIKE

from dispatch_core import Dispatcher, HashingEmbedder, MeasuredStore, RedisNearStore, SemanticCache
from dispatch_core.keys import digest


@pytest.fixture
def client(redis_like_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_like_url) as given:
        yield given


@pytest.fixture
async def both(redis_like_url, form):
    prefix = uuid.uuid4().hex
    pair = [Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form) for _ in range(2)]
    yield pair
    for either in pair:
        await either.target.aclose()


def _calls(client: redis.Redis) -> dict[str, int]:
    names = ("mget", "get", "xrange", "eval", "evalsha", "scan")
    stats = client.info("commandstats")
    return {name: stats[f"cmdstat_{name}"]["calls"] for name in names if f"cmdstat_{name}" in stats}


async def test_a_get_is_one_command(both, client):
    one, _ = both
    await one.put(made("a"), EAST)
    client.config_resetstat()
    assert await one.get(digest("a"), now=NOW) == made("a")
    assert _calls(client) == {"mget": 1}


async def test_a_put_into_a_known_scope_is_one_command_without_the_scripts_text(both, client):
    one, _ = both
    await one.put(made("a"), EAST)
    client.config_resetstat()
    for number in range(10):
        await one.put(made(f"{number}"), NORTH)
    # What the script reads is counted, too.
    assert _calls(client) == {"evalsha": 10, "get": 10}


async def test_who_only_writes_hears_of_others_now_and_then_and_remembers_no_more_than_that(both, client):
    one, other = both
    await one.put(made("first"), EAST)
    for number in range(300):
        await other.put(made(f"theirs {number}"), EAST)
        await one.put(made(f"ours {number}"), EAST)
        assert len(one.target._mirror._own) <= 100
    for number in range(100):
        await one.put(made(f"exact {number}"), None)
        assert len(one.target._mirror._own) <= 100
    assert len(await found(one, limit=1_000)) == len(await found(other, limit=1_000)) == 601


async def test_who_only_writes_answers_without_vectors_remembers_nothing(both):
    one, _ = both
    for number in range(100):
        await one.put(made(f"{number}"), None)
    assert not one.target._mirror._own


async def test_a_script_that_the_server_has_forgotten_is_told_again(both, client):
    one, _ = both
    await one.put(made("a"), EAST)
    client.script_flush()
    await asyncio.gather(*(one.put(made(f"{number}"), EAST) for number in range(20)))
    client.script_flush()
    assert await one.lease("l", owner="one", seconds=9)
    client.script_flush()
    assert await one.clear() == 21


async def test_a_search_without_news_is_one_round_trip(both, client):
    one, _ = both
    for number in range(20):
        await one.put(made(f"{number}"), unit(1, number, 0))
    client.config_resetstat()
    assert len(await found(one, limit=9)) == 9
    assert _calls(client) == {"mget": 1, "xrange": 1}


async def test_news_that_change_nothing_found_cost_one_round_trip_more(both, client):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name), EAST)
    assert len(await found(other)) == 2
    await one.put(made("c", scope="elsewhere"), EAST)
    client.config_resetstat()
    assert len(await found(other)) == 2
    assert _calls(client) == {"mget": 2, "xrange": 1}
    await one.touch(digest("a"), expires=NOW + 5, now=NOW)
    client.config_resetstat()
    assert [m.entry.expires for m in await other.search(EAST, scope=HERE, limit=9, now=NOW)] in (
        [NOW + 5, None],
        [None, NOW + 5],
    )
    assert _calls(client) == {"mget": 1, "xrange": 1}


async def test_news_that_bring_a_better_entry_cost_one_round_trip_more(both, client):
    one, other = both
    await one.put(made("far"), NORTH)
    assert await found(other) == [digest("far")]
    await one.put(made("near"), EAST)
    client.config_resetstat()
    assert await found(other) == [digest("near"), digest("far")]
    assert _calls(client) == {"mget": 2, "xrange": 1}


async def test_a_hundred_askers_on_a_loop_are_a_few_commands(redis_like_url, client):
    store = RedisNearStore(redis_like_url, prefix=uuid.uuid4().hex, timeout=20)
    other = RedisNearStore(redis_like_url, prefix=store._keys.entries[1:33], timeout=20)
    for number in range(20):
        await store.aput(made(f"{number}"), unit(1, number, 0))
    client.config_resetstat()
    entries = await asyncio.gather(*(store.aget(digest(f"{n % 20}"), now=NOW) for n in range(100)))
    assert [entry.id for entry in entries] == [digest(f"{n % 20}") for n in range(100)]
    assert _calls(client)["mget"] <= 3
    client.config_resetstat()
    await asyncio.gather(*(store.asearch(EAST, scope=HERE, limit=5, now=NOW) for _ in range(100)))
    assert max(_calls(client).values()) <= 3
    await other.aput(made("new"), EAST)
    client.config_resetstat()
    matches = await asyncio.gather(*(store.asearch(EAST, scope=HERE, limit=1, now=NOW) for _ in range(100)))
    assert {len(match) for match in matches} == {1}
    assert _calls(client)["mget"] <= 5
    assert _calls(client)["xrange"] <= 3
    for each in (store, other):
        await each.aclose()


async def test_what_was_written_before_a_search_began_is_found_while_others_search(redis_like_url):
    prefix = uuid.uuid4().hex
    one, other = (RedisNearStore(redis_like_url, prefix=prefix, timeout=20) for _ in range(2))
    searching = True

    async def search_on() -> None:
        while searching:
            await one.asearch(EAST, scope=HERE, limit=3, now=NOW)

    crowd = [asyncio.create_task(search_on()) for _ in range(20)]
    for number in range(100):
        writer = other if number % 2 else one
        vector = unit(math.cos(math.tau * number / 100), math.sin(math.tau * number / 100), 0)
        await writer.aput(made(f"{number}"), vector)
        [match] = await one.asearch(vector, scope=HERE, limit=1, now=NOW)
        assert match.entry.id == digest(f"{number}")
    searching = False
    await asyncio.gather(*crowd)
    for each in (one, other):
        await each.aclose()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_askers_on_several_loops_and_threads_at_once_are_all_answered(redis_like_url):
    store = RedisNearStore(redis_like_url, prefix=uuid.uuid4().hex, timeout=20)
    for number in range(10):
        store.put(made(f"{number}"), unit(1, number, 0))

    async def crowd() -> list[str]:
        async def ask(number: int) -> str:
            entry = await store.aget(digest(f"{number % 10}"), now=NOW)
            [match] = await store.asearch(unit(1, number % 10, 0), scope=HERE, limit=1, now=NOW)
            assert match.entry == entry
            return match.entry.id

        try:
            return await asyncio.gather(*map(ask, range(50)))
        finally:
            await store.aclose()

    with ThreadPoolExecutor(6) as threads:
        loops = [threads.submit(asyncio.run, crowd()) for _ in range(3)]
        plain = [threads.submit(store.search, unit(1, n % 10, 0), scope=HERE, limit=1, now=NOW) for n in range(60)]
        for loop in loops:
            assert loop.result() == [digest(f"{n % 10}") for n in range(50)]
        assert [each.result()[0].entry.id for each in plain] == [digest(f"{n % 10}") for n in range(60)]
    store.close()


# What it takes


@pytest.fixture(params=["memory", "sqlite", *(f"near on {kind}" for kind in REDIS_LIKE)])
def measured(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


async def test_a_store_says_what_its_entries_take(measured, form):
    store = Either(measured.open(), form)
    assert isinstance(store.target, MeasuredStore)
    assert (await store.memory()).per_entry == 0
    rows = np.random.default_rng(1).normal(size=(100, 384)).astype(np.float32)
    for number, row in enumerate(rows / np.linalg.norm(rows, axis=1, keepdims=True)):
        await store.put(made(f"{number}"), row)
    taken = await store.memory()
    assert (taken.entries, taken.server) == (100, None)
    assert taken.per_entry > 4 * 384
    asked = await store.memory(samples=10)
    if not measured.url:
        assert asked.server is None
    else:
        assert asked.server > 100 * 4 * 384
    cache = SemanticCache(HashingEmbedder(), store.target)
    stats = Dispatcher(cache).stats()
    assert stats.memory == taken
    assert "memory per entry" in stats._repr_html_()
    await store.target.aclose()


def test_a_store_that_cannot_tell_shows_nothing():
    assert "memory" not in Dispatcher().stats()._repr_html_()
