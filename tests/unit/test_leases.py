"""Leases: of all processes that share a store one asks, and none waits for one that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from awaits import await_by_await
from fakes import FlakyStore
from flights import COST, NEAR, QUERY, SlowStore, World, settled, tasks_of, until, virtual_world
from leasing import LeasingFake
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import ConfigError, Dispatcher, LimitExceeded, MemoryStore, SemanticCache, StoreError, Ticket


class SlowLeasing(LeasingFake, SlowStore):
    """Every call gives the loop a turn."""


def virtual_worlds(number: int, store: LeasingFake | None = None, **settings: Any) -> list[World]:
    """Dispatchers of as many processes, who share a store. They do not write behind: a thread that writes takes its
    time while that of the loop jumps."""
    store = LeasingFake(asyncio.get_running_loop().time) if store is None else store
    return [virtual_world(store=store, **{"lease": 30.0, "write_behind": False, **settings}) for _ in range(number)]


def nothing_stays(*worlds: World) -> bool:
    assert all(world.dispatcher.flush(60) for world in worlds)
    return not worlds[0].store.held and all(world.left_nothing() for world in worlds)


# One call


def test_of_two_processes_with_a_hundred_askers_each_one_asks():
    async def main() -> None:
        worlds = virtual_worlds(2)
        tasks = [task for world in worlds for task in tasks_of(world, 100)]
        assert await asyncio.gather(*tasks) == [b"answer"] * 200
        assert sorted(world.calls for world in worlds) == [0, 1]
        stats = [world.dispatcher.stats() for world in worlds]
        assert (sum(one.shared for one in stats), sum(one.misses for one in stats)) == (199, 1)
        assert virtual_now() < 2
        assert nothing_stays(*worlds)

    in_virtual_time(main())


def test_of_many_threads_of_two_processes_one_asks():
    store = LeasingFake()
    worlds = [World(store=store, lease=60.0) for _ in range(2)]
    for world in worlds:
        world.call = lambda: until(lambda: sum(world.waiting for world in worlds) == 38)
    with ThreadPoolExecutor(40) as threads:
        jobs = [threads.submit(world.ask) for world in worlds * 20]
        assert [job.result() for job in jobs] == [b"answer"] * 40
    assert sorted(world.calls for world in worlds) == [0, 1]
    assert nothing_stays(*worlds)


def test_the_answer_of_another_process_says_what_it_is():
    async def main() -> None:
        here, there = virtual_worlds(2)
        ticket = await there.dispatcher.abegin(QUERY)
        waits = asyncio.create_task(here.dispatcher.abegin(QUERY))
        await asyncio.sleep(3)
        await there.dispatcher.afinish(ticket, b"from there")
        assert there.dispatcher.flush(60)
        match = await waits
        assert (match.kind, match.exact, match.score, match.entry.payload) == ("flight", True, 1.0, b"from there")
        assert virtual_now() < 4
        assert nothing_stays(here, there)

    in_virtual_time(main())


def test_other_wordings_follow_one_who_waits_for_another_process():
    async def main() -> None:
        here, there = virtual_worlds(2)
        first = asyncio.create_task(there.aask())
        await settled()
        tasks = [*tasks_of(here, 3), *tasks_of(here, 3, NEAR)]
        assert await asyncio.gather(first, *tasks) == [b"answer"] * 7
        assert (there.calls, here.calls) == (1, 0)
        assert nothing_stays(here, there)

    in_virtual_time(main())


def test_who_gets_the_lease_looks_once_more():
    """The other answered, and gave its lease back, between our lookup and our asking for it."""

    async def main() -> None:
        here, there = virtual_worlds(2)
        usual = here.store.asearch

        async def late(*args: Any, **kwargs: Any) -> Any:
            here.store.asearch = usual
            found = await usual(*args, **kwargs)
            await there.aask()
            assert there.dispatcher.flush(60)
            assert not here.store.held
            return found

        here.store.asearch = late
        assert await here.aask() == b"answer"
        assert (there.calls, here.calls) == (1, 0)
        assert nothing_stays(here, there)

    in_virtual_time(main())


# How it ends


def test_a_lease_lasts_until_the_answer_is_written():
    store, gate = LeasingFake(), threading.Event()
    world, put = World(store=store, lease=60.0), store.put
    store.put = lambda entry, vector: gate.wait(60) and put(entry, vector)
    ticket = world.dispatcher.begin(QUERY)
    world.dispatcher.finish(ticket, b"answer")
    assert len(store.held) == 1
    gate.set()
    assert nothing_stays(world)
    assert len(store) == 1


@pytest.mark.parametrize("form", ["abort", "unstorable", "failed write", "drop", "cycle"])
def test_a_lease_is_given_back_without_an_answer(form):
    store = LeasingFake()
    world = World(store=store, lease=1e6)
    ticket: Any = world.dispatcher.begin(QUERY)
    assert len(store.held) == 1
    if form == "abort":
        world.dispatcher.abort(ticket)
    elif form == "unstorable":
        world.dispatcher.finish(ticket, None)
    elif form == "failed write":
        store.breaks, store.error = {"put"}, StoreError("full")
        world.dispatcher.finish(ticket, b"answer")
    elif form == "cycle":
        ticket = [ticket]
        ticket.append(ticket)
    if form in ("drop", "cycle"):
        del ticket
        gc.collect()
    until(lambda: not store.held)
    assert nothing_stays(world)


def test_a_ticket_that_is_dropped_lets_another_process_go():
    async def main() -> None:
        here, there = virtual_worlds(2, lease=1e6)
        ticket = await there.dispatcher.abegin(QUERY)
        waits = asyncio.create_task(here.aask())
        await asyncio.sleep(3)
        del ticket
        assert there.dispatcher.flush(60)
        assert await waits == b"answer"
        assert (here.calls, nothing_stays(here, there)) == (1, True)
        assert virtual_now() < 6

    in_virtual_time(main())


def test_a_process_that_is_gone_holds_nobody_up_for_longer_than_its_lease():
    async def main() -> None:
        (world,) = virtual_worlds(1, flight_timeout=1e6)
        key = world.dispatcher.cache.unseen(QUERY).id
        assert world.store.lease(key, owner="one that is gone", seconds=30)
        assert await asyncio.gather(*tasks_of(world, 20)) == [b"answer"] * 20
        assert 30 <= virtual_now() < 32
        assert (world.calls, nothing_stays(world)) == (1, True)

    in_virtual_time(main())


def test_nobody_waits_for_another_process_longer_than_the_flight_timeout():
    async def main() -> None:
        here, there = virtual_worlds(2, lease=1e6, flight_timeout=7)
        ticket = await there.dispatcher.abegin(QUERY)
        assert await asyncio.gather(*tasks_of(here, 5)) == [b"answer"] * 5
        assert virtual_now() == pytest.approx(8, abs=0.1)
        assert (here.calls, len(here.store.held)) == (5, 1)
        there.dispatcher.abort(ticket)
        assert nothing_stays(here, there)

    in_virtual_time(main())


def test_waiting_for_another_process_is_waiting_for_the_quota():
    async def main() -> None:
        here, there = virtual_worlds(2, lease=1e6)
        ticket = await there.dispatcher.abegin(QUERY)
        assert await here.aask(timeout=3) == b"answer"
        assert here.limiter.timeouts == [pytest.approx(0, abs=0.01)]
        there.dispatcher.abort(ticket)
        assert nothing_stays(here, there)

    in_virtual_time(main())


def test_who_is_refused_a_place_gives_the_lease_back():
    async def main() -> None:
        (world,) = virtual_worlds(1)
        world.limiter.error = LimitExceeded("full", 3.0)
        with pytest.raises(LimitExceeded) as caught:
            await world.dispatcher.abegin(QUERY, COST)
        assert nothing_stays(world)
        assert caught.value.retry_after == 3.0

    in_virtual_time(main())


@pytest.mark.parametrize("elsewhere", [True, False], ids=["held elsewhere", "free"])
def test_a_cancellation_at_any_await_leaves_no_lease_behind(elsewhere):
    async def cancelled_at(stop: int) -> bool:
        here, there = virtual_worlds(2, SlowLeasing(asyncio.get_running_loop().time), write_behind=False)
        others = tasks_of(there, 1) if elsewhere else []
        await asyncio.sleep(0.5 if elsewhere else 0)
        work = asyncio.create_task(await_by_await(here.aask(), stop))
        assert set(await asyncio.gather(*others)) <= {b"answer"}
        await work
        assert nothing_stays(here, there)
        return work.result()[0]

    stops = 0
    while stops < 60 and in_virtual_time(cancelled_at(stops)):
        stops += 1
    assert 4 <= stops < 60


def test_the_next_leader_of_the_same_process_keeps_its_own_lease():
    """The one before gives back his, not the one that took over after it."""

    async def main() -> None:
        (world,) = virtual_worlds(1, lease=5.0, flight_timeout=1.0)
        old = await asyncio.create_task(world.dispatcher.abegin(QUERY))
        await asyncio.sleep(6)
        new = await asyncio.create_task(world.dispatcher.abegin(QUERY))
        world.dispatcher.abort(old)
        assert world.dispatcher.flush(60)
        assert len(world.store.held) == 1
        world.dispatcher.abort(new)
        assert nothing_stays(world)

    in_virtual_time(main())


def test_a_child_process_gives_back_no_lease_of_its_parent():
    store = LeasingFake()
    world = World(store=store, lease=1e6)
    ticket = world.dispatcher.begin(QUERY)
    child = os.fork()
    if child == 0:  # pragma: no cover
        ended = 1
        with contextlib.suppress(BaseException):
            world.dispatcher.abort(ticket)
            flushed = world.dispatcher.flush(20)
            other = world.dispatcher.begin(NEAR)
            world.dispatcher.abort(other)
            ended = (
                0 if flushed and len(store.held) == 2 and world.dispatcher.flush(20) and len(store.held) == 1 else 2
            )
        os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    world.dispatcher.abort(ticket)
    assert nothing_stays(world)


def test_the_thread_that_gives_leases_back_ends_with_the_last_lease():
    world = World(store=LeasingFake(), lease=60.0)

    def works() -> bool:
        return any(thread.name == "dispatch-leases" for thread in threading.enumerate())

    until(lambda: not works())
    for _ in range(3):
        tickets = [world.dispatcher.begin(query) for query in (QUERY, NEAR)]
        assert works()
        for ticket in tickets:
            world.dispatcher.abort(ticket)
        until(lambda: not works())
    assert nothing_stays(world)


def test_without_a_thread_to_be_had_a_flush_gives_leases_back(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    world = World(store=LeasingFake(), lease=60.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    world.dispatcher.abort(world.dispatcher.begin(QUERY))
    assert nothing_stays(world)


# A store that fails


@pytest.mark.parametrize("name", ["lease", "release"])
def test_a_store_without_working_leases_lets_everybody_go(name):
    async def main() -> None:
        (world,) = virtual_worlds(1)
        world.store.breaks, world.store.error = {name}, StoreError("down")
        assert await asyncio.gather(*tasks_of(world, 5)) == [b"answer"] * 5
        assert world.dispatcher.flush(60)
        assert (world.calls, world.dispatcher.stats().failures) == (1, 1)
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_store_that_fails_while_one_waits_lets_him_go():
    async def main() -> None:
        here, there = virtual_worlds(2)
        ticket = await there.dispatcher.abegin(QUERY)
        waits = asyncio.create_task(here.aask())
        await asyncio.sleep(2)
        here.store.error = StoreError("down")
        assert await waits == b"answer"
        assert virtual_now() < 4
        here.store.error = None
        there.dispatcher.abort(ticket)
        assert here.dispatcher.stats().failures >= 1
        assert nothing_stays(here, there)

    in_virtual_time(main())


def test_with_raise_a_lease_that_fails_reaches_the_caller_and_one_given_back_does_not():
    async def main() -> None:
        (world,) = virtual_worlds(1, on_error="raise")
        world.store.breaks, world.store.error = {"lease"}, StoreError("down")
        with pytest.raises(StoreError, match="down"):
            await world.aask()
        assert world.dispatcher.flush(60)
        world.store.breaks = {"release"}
        assert await world.aask() == b"answer"
        assert world.dispatcher.flush(60)
        assert world.dispatcher.stats().failures == 2
        assert world.left_nothing()

    in_virtual_time(main())


# Settings


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_lease_is_a_positive_number_of_seconds(seconds):
    with pytest.raises(ConfigError, match="lease is a positive"):
        World(store=LeasingFake(), lease=seconds)


@pytest.mark.parametrize("store", [MemoryStore(), FlakyStore()])
def test_a_lease_needs_a_store_that_has_them(store):
    with pytest.raises(ConfigError, match="needs a store"):
        Dispatcher(SemanticCache(None, store), lease=30.0)
    with pytest.raises(ConfigError, match="needs a store"):
        Dispatcher(lease=30.0)


def test_a_lease_needs_flights():
    with pytest.raises(ConfigError, match="single_flight"):
        World(store=LeasingFake(), lease=30.0, single_flight=False)


def test_without_a_lease_the_store_is_not_asked_for_one():
    world = World(store=LeasingFake())
    assert isinstance(world.dispatcher.begin(QUERY), Ticket)
    assert world.store.held == {}
