"""What stores that processes share promise about leases: one owner at a time, and no dead owner for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import Clock, Either, in_another_process, made
from places import EAST, HERE, NOW, SHARED, Place, found, place_of

from dispatch_core import LeasingStore, MemoryStore, SQLiteStore, StoreError

LONG = 1_000.0


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place whose stores lease."""
    return place_of(request.param, request, tmp_path)


async def test_a_lease_has_one_owner(both):
    one, other = both
    assert await one.lease("a", owner="one", seconds=LONG)
    assert not await one.lease("a", owner="other", seconds=LONG)
    assert not await other.lease("a", owner="other", seconds=LONG)
    assert await other.lease("b", owner="other", seconds=LONG)


async def test_an_owner_may_renew(both):
    one, other = both
    assert await one.lease("a", owner="one", seconds=0.001)
    # Whether that was in time or it is taken anew, it is the same owner's.
    assert await other.lease("a", owner="one", seconds=LONG)
    assert await one.lease("a", owner="one", seconds=LONG)
    assert not await other.lease("a", owner="other", seconds=LONG)


async def test_what_was_given_back_is_free(both):
    one, other = both
    assert await one.lease("a", owner="one", seconds=LONG)
    await other.release("a", owner="one")
    assert await other.lease("a", owner="other", seconds=LONG)


async def test_a_stranger_gives_nothing_back(both):
    one, other = both
    assert await one.lease("a", owner="one", seconds=LONG)
    await other.release("a", owner="other")
    await other.release("never was", owner="other")
    assert not await other.lease("a", owner="other", seconds=LONG)
    await one.release("a", owner="one")
    await one.release("a", owner="one")
    assert await other.lease("a", owner="other", seconds=LONG)


async def test_a_dead_owner_blocks_no_longer_than_its_lease(both):
    one, other = both
    assert await one.lease("a", owner="dead", seconds=0.02)
    while not await other.lease("a", owner="other", seconds=LONG):
        await asyncio.sleep(0)
    assert not await one.lease("a", owner="dead", seconds=LONG)


async def test_leases_are_no_entries(both):
    one, other = both
    await one.put(made("a"), EAST)
    assert await one.lease(made("a").id, owner="one", seconds=LONG)
    assert await found(other) == [made("a").id]
    assert await other.clear() == 1
    assert not await other.lease(made("a").id, owner="other", seconds=LONG)
    assert await one.search(EAST, scope=HERE, limit=9, now=NOW) == []


@pytest.mark.parametrize("name", ["", "nul \x00 and {braces} * ?", "你好", "x" * 10_000])
async def test_any_text_names_a_lease_and_an_owner(both, name):
    one, other = both
    assert await one.lease(name, owner=name, seconds=LONG)
    assert not await other.lease(name, owner=name + "'", seconds=LONG)
    await other.release(name, owner=name)
    assert await other.lease(name, owner=name + "'", seconds=LONG)


def test_of_fifty_threads_one_is_the_owner(shared):
    stores = [shared.open(), shared.open()]
    start = threading.Barrier(50)

    def ask(number: int) -> list[bool]:
        start.wait()
        return [stores[number % 2].lease(f"{turn}", owner=f"{number}", seconds=LONG) for turn in range(5)]

    with ThreadPoolExecutor(50) as threads:
        taken = list(threads.map(ask, range(50)))
    assert [sum(column) for column in zip(*taken, strict=True)] == [1] * 5
    for store in stores:
        store.close()


_TAKES_ALL = """
import sys
from fakes import made
from places import opened
store = opened(sys.argv[1])
store.put(made("ready"), None)
print(*(name for name in map(str, range(300)) if store.lease(name, owner="theirs", seconds=1000)))
store.close()
"""


def test_two_processes_never_own_the_same_lease(shared):
    store = shared.open()
    with ThreadPoolExecutor(1) as aside:
        other = aside.submit(in_another_process, _TAKES_ALL, shared.url)
        while store.get(made("ready").id, now=NOW) is None and not other.done():
            pass
        # From the other end, so that both meet.
        ours = {name for name in map(str, reversed(range(300))) if store.lease(name, owner="ours", seconds=LONG)}
        theirs = set(other.result().split())
    assert not ours & theirs
    assert ours | theirs == {str(number) for number in range(300)}
    store.close()


def test_a_store_says_whether_it_leases(shared):
    store = shared.open()
    assert isinstance(store, LeasingStore)
    assert not isinstance(MemoryStore(), LeasingStore)
    store.close()


async def test_leases_in_a_file_end_by_the_given_clock(tmp_path, form):
    clock = Clock(NOW)
    one, other = (Either(SQLiteStore(tmp_path / "cache.db", clock=clock), form) for _ in range(2))
    assert await one.lease("a", owner="one", seconds=10)
    clock.now = NOW + 9.9
    assert not await other.lease("a", owner="other", seconds=10)
    assert await one.lease("a", owner="one", seconds=10)
    clock.now = NOW + 19
    assert not await other.lease("a", owner="other", seconds=10)
    clock.now = NOW + 19.9
    assert await other.lease("a", owner="other", seconds=10)
    for store in (one, other):
        await store.close()
        with pytest.raises(StoreError):
            await store.lease("a", owner="one", seconds=10)
