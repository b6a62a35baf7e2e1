"""What stores with a cap promise: never more than the cap, and what saves least gives way first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Either, made, unit
from places import EAST, NORTH, NOW, found

from dispatch_core import ConfigError, DimensionMismatch, MemoryStore, SQLiteStore, Usage
from dispatch_core.keys import digest
from dispatch_core.types import Entry

Capped = Callable[[int], Either]


@pytest.fixture(params=["memory", "sqlite"])
async def capped(request: pytest.FixtureRequest, tmp_path: Path, form: str) -> AsyncIterator[Capped]:
    """Opens a store that holds so many entries."""
    opened: list[Either] = []

    def open_one(cap: int) -> Either:
        path = tmp_path / "cache.db"
        target = MemoryStore(max_entries=cap) if request.param == "memory" else SQLiteStore(path, max_entries=cap)
        opened.append(Either(target, form))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.target.aclose()


def _dear(name: str, tokens: int, **more) -> Entry:
    return replace(made(name, **more), usage=Usage(0, tokens))


async def _left(store: Either, *names: str) -> list[str]:
    """Read from a search, which counts as a use of the first alone."""
    there = set(await found(store, limit=1_000))
    return [name for name in names if digest(name) in there]


async def test_of_equals_the_oldest_gives_way(capped):
    store = capped(3)
    for name in "abcde":
        await store.put(made(name), EAST)
    assert await _left(store, *"abcde") == ["c", "d", "e"]


async def test_what_was_just_put_stays(capped):
    store = capped(2)
    for name in ("a", "b"):
        await store.put(_dear(name, 1_000_000), EAST)
    await store.put(replace(made("no", payload=b"x" * 1_000), tombstone=True), NORTH)
    assert (await store.get(digest("no"), now=NOW)).tombstone


async def test_putting_the_same_entry_again_takes_no_more_room(capped):
    store = capped(2)
    for name in "aabbab":
        await store.put(made(name), EAST)
    assert await _left(store, "a", "b") == ["a", "b"]


async def test_entries_without_a_vector_take_room_too(capped):
    store = capped(2)
    for name in "abc":
        await store.put(made(name), None)
    assert [await store.get(digest(name), now=NOW) is None for name in "abc"] == [True, False, False]


async def test_expired_entries_give_way_first(capped):
    store = capped(3)
    await store.put(made("a"), EAST)
    await store.put(_dear("expired", 1_000_000, expires=1_000.5), EAST)
    await store.put(made("b"), EAST)
    await store.put(replace(made("c"), created=1_001.0), EAST)
    assert await store.get(digest("expired"), now=1_000.0) is None
    assert await _left(store, *"abc") == ["a", "b", "c"]


async def test_a_touched_entry_expires_later_for_the_cap_too(capped):
    store = capped(2)
    for name in ("a", "b"):
        await store.put(made(name, expires=1_001.0), EAST)
    await store.touch(digest("a"), expires=2_000.0, now=1_000.5)
    await store.put(replace(made("c"), created=1_500.0), EAST)
    assert await store.get(digest("a"), now=1_500.0) is not None
    assert await store.get(digest("b"), now=1_000.0) is None


async def test_what_costs_fewer_tokens_gives_way_first(capped):
    store = capped(3)
    for name, tokens in (("dear", 900), ("cheap", 10), ("dearer", 2_000), ("new", 500)):
        await store.put(_dear(name, tokens), EAST)
    assert await _left(store, "dear", "cheap", "dearer", "new") == ["dear", "dearer", "new"]


async def test_of_equal_cost_the_larger_gives_way_first(capped):
    store = capped(2)
    await store.put(_dear("small", 100, payload=b"x"), EAST)
    await store.put(_dear("large", 100, payload=b"x" * 10_000), EAST)
    await store.put(_dear("new", 100), EAST)
    assert await _left(store, "small", "large", "new") == ["small", "new"]


async def test_a_tombstone_gives_way_before_an_answer(capped):
    store = capped(2)
    await store.put(_dear("answer", 100), EAST)
    await store.put(replace(_dear("no", 100), tombstone=True), EAST)
    await store.put(_dear("new", 100), EAST)
    assert await _left(store, "answer", "no", "new") == ["answer", "new"]


@pytest.mark.parametrize("by", ["get", "search"])
async def test_what_is_used_outlives_what_is_not(capped, by):
    store = capped(3)
    for name, vector in (("used", EAST), ("unused", NORTH), ("neither", unit(0, 1, 1))):
        await store.put(made(name), vector)
    for _ in range(4):
        if by == "get":
            await store.get(digest("used"), now=NOW)
        else:
            await store.search(EAST, scope=digest("scope"), limit=3, now=NOW)
    for name in ("new", "newer"):
        await store.put(made(name), NORTH)
    assert await _left(store, "used", "unused", "neither", "new", "newer") == ["used", "new", "newer"]


async def test_a_rewritten_entry_keeps_its_standing(capped):
    store = capped(2)
    await store.put(made("used"), EAST)
    for _ in range(3):
        await store.get(digest("used"), now=NOW)
    await store.put(made("used", payload=b"renewed"), EAST)
    for name in ("a", "b", "c"):
        await store.put(made(name), NORTH)
    assert (await store.get(digest("used"), now=NOW)).payload == b"renewed"


async def test_deleted_entries_make_room(capped):
    store = capped(2)
    for name in ("a", "b"):
        await store.put(made(name), EAST)
    await store.delete(digest("b"))
    await store.put(made("c"), EAST)
    assert await _left(store, *"abc") == ["a", "c"]
    assert await store.clear() == 2
    for name in ("d", "e"):
        await store.put(made(name), EAST)
    assert await _left(store, "d", "e") == ["d", "e"]


async def test_threads_at_once_never_exceed_the_cap(capped):
    store = capped(10).target

    def work(number: int) -> None:
        store.put(made(f"{number}"), EAST)
        store.search(EAST, scope=digest("scope"), limit=3, now=NOW)

    def all_work() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(100)))

    await asyncio.to_thread(all_work)
    assert len(store.search(EAST, scope=digest("scope"), limit=99, now=NOW)) == 10
    assert store.clear() == 10


@pytest.mark.parametrize("kind", [MemoryStore, lambda **cap: SQLiteStore("never.db", **cap)])
def test_a_cap_of_nothing_is_refused(kind):
    with pytest.raises(ConfigError, match="max_entries"):
        kind(max_entries=0)


# Memory


async def test_payloads_texts_and_vectors_count_in_bytes(form):
    store = Either(MemoryStore(max_bytes=1_000), form)
    for name in "abc":
        await store.put(made(name, text="ä" * 100, payload=b"x" * 88), EAST)
    assert len(store.target) == 3
    await store.put(made("d", payload=b"x" * 110), EAST)
    assert len(store.target) == 3
    await store.put(made("e", payload=b"x" * 900), EAST)
    assert await _left(store, *"abcde") == ["e"]


async def test_what_is_larger_than_the_cap_is_not_kept_and_pushes_nothing_out(form):
    store = Either(MemoryStore(max_bytes=1_000), form)
    for name in "ab":
        await store.put(made(name), EAST)
    await store.put(made("a", payload=b"x" * 1_000), EAST)
    assert await store.get(digest("a"), now=NOW) is None
    assert await _left(store, *"ab") == ["b"]
    with pytest.raises(ConfigError, match="max_bytes"):
        MemoryStore(max_bytes=0)


# SQLite


async def test_a_file_beyond_the_cap_shrinks_with_the_next_put(tmp_path, form):
    whole = Either(SQLiteStore(tmp_path / "cache.db"), form)
    for number in range(20):
        await whole.put(_dear(f"{number}", 100 + number), EAST)
    store = Either(SQLiteStore(tmp_path / "cache.db", max_entries=5), form)
    assert await store.get(digest("0"), now=NOW) is not None
    await store.put(_dear("new", 1), EAST)
    expected = {digest(name) for name in ("16", "17", "18", "19", "new")}
    for one in (store, whole):
        assert set(await found(one, limit=99)) == expected
        await one.close()


async def test_stores_of_one_file_keep_the_cap_together(tmp_path, form):
    stores = [Either(SQLiteStore(tmp_path / "cache.db", max_entries=6), form) for _ in range(2)]
    for number in range(40):
        await stores[number % 2].put(made(f"{number}"), EAST)
        if number % 3 == 0:
            await stores[1 - number % 2].delete(digest(f"{number}"))
        counts = [len(await found(store, limit=99)) for store in stores]
        assert counts[0] == counts[1] <= 6
    for store in stores:
        await store.close()


async def test_a_put_that_failed_leaves_the_count_right(tmp_path, form):
    store = Either(SQLiteStore(tmp_path / "cache.db", max_entries=2), form)
    await store.put(made("a"), EAST)
    with pytest.raises(DimensionMismatch):
        await store.put(made("b"), unit(1, 0))
    for name in ("c", "d"):
        await store.put(made(name), EAST)
    assert await _left(store, *"abcd") == ["c", "d"]
    await store.close()
