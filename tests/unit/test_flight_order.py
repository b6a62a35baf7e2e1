"""Single flight at every await, at every line, in every order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import threading
import time
from typing import Any

import pytest
from awaits import await_by_await
from flights import QUERY, SlowStore, World, settled, tasks_of, virtual_world
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    Match,
    Query,
    Ticket,
)
from dispatch_core._wake import Sleeper
from dispatch_core.flight import FREED, Flight

# Every await, every line, every order


@pytest.mark.parametrize("ahead", [0, 1, 3], ids=["leads", "follows", "follows behind others"])
@pytest.mark.parametrize("outcomes", [[], [None], [ValueError("down")]], ids=["answered", "unstorable", "failed"])
def test_a_cancellation_at_any_await_leaves_nothing_and_nobody_behind(ahead, outcomes):
    async def cancelled_at(stop: int) -> bool:
        world = virtual_world(store=SlowStore(), write_behind=False)
        world.outcomes = list(outcomes)
        others = tasks_of(world, ahead)
        await asyncio.sleep(0.05)
        work = asyncio.create_task(await_by_await(world.aask(), stop))
        await asyncio.sleep(0)
        others += tasks_of(world, 3)
        with contextlib.suppress(ValueError):
            await work
        done = await asyncio.gather(*others, return_exceptions=True)
        assert all(one in (b"answer", None) or isinstance(one, ValueError) for one in done)
        assert world.left_nothing()
        return not work.exception() and work.result()[0]

    stops = 0
    while stops < 40 and in_virtual_time(cancelled_at(stops)):
        stops += 1
    assert 1 <= stops < 40


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_leaders_do_everybody_is_answered_or_goes_himself(data):
    number = data.draw(st.integers(1, 12))
    does = [
        data.draw(st.sampled_from(["finish", "finish", "nothing", "abort", "drop", "cancel"])) for _ in range(number)
    ]
    starts = [data.draw(st.sampled_from([0.0, 0.0, 0.5, 3.0])) for _ in range(number)]
    takes = [data.draw(st.sampled_from([0.0, 1.0, 9.0])) for _ in range(number)]
    gives_up = [data.draw(st.sampled_from([None, None, 0.5, 1.0])) for _ in range(number)]

    async def main() -> None:
        world = virtual_world(flight_timeout=5)
        answers: list[bytes] = []

        async def asker(index: int) -> str:
            await asyncio.sleep(starts[index])
            begun = virtual_now()
            found = await world.dispatcher.abegin(QUERY)
            assert virtual_now() - begun < 5.01
            if isinstance(found, Match):
                assert found.entry.payload in answers
                return "served"
            await asyncio.sleep(takes[index])
            if does[index] == "finish":
                answers.append(b"%d" % index)
                await world.dispatcher.afinish(found, answers[-1])
            elif does[index] == "nothing":
                await world.dispatcher.afinish(found, None)
            elif does[index] == "abort":
                world.dispatcher.abort(found)
            elif does[index] == "cancel":
                raise asyncio.CancelledError
            return does[index]

        async def patient(index: int) -> str | None:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asker(index), gives_up[index])
            return "gave up"

        done = await asyncio.gather(*(patient(index) for index in range(number)), return_exceptions=True)
        stats = world.dispatcher.stats()
        assert stats.hits == done.count("served") or "gave up" in done
        assert all(
            one in ("served", "gave up", does[index]) for index, one in enumerate(done) if isinstance(one, str)
        )
        del done
        gc.collect()
        await settled()
        assert world.left_nothing()

    gc.freeze()  # what was there before need not be collected in every example
    try:
        in_virtual_time(main())
    finally:
        gc.unfreeze()


def test_a_finaliser_may_wake_a_thread_at_every_line_of_its_lying_down():
    """An event has a lock inside, that a finaliser in the same thread would wait for without an end."""
    sleeper, woken = Sleeper(), []

    def wakes(frame: Any, what: str, _: Any) -> Any:
        if frame.f_code.co_name in ("wake", "_ring", "_resolve"):
            return None
        woken.append(sleeper.wake())
        return wakes

    def sleeps() -> None:
        sys.settrace(wakes)
        try:
            for _ in range(3):
                sleeper.wait(60)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=sleeps, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert len(woken) > 10


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9])
def test_a_thread_that_has_no_time_does_not_sleep(seconds):
    Sleeper().wait(seconds)


def test_a_wake_before_the_wait_is_not_lost():
    sleeper = Sleeper()
    for _ in range(3):
        sleeper.wake()
        sleeper.wake()
        sleeper.wait(3_600)
        sleeper.wake()
        sleeper.wait(3_600)
        assert sleeper._bell is not None
        assert sleeper._bell.locked()
    asyncio.run(sleeper.await_(0))


def test_only_the_first_end_of_a_flight_counts():
    table: dict[Any, Flight] = {}
    flight = table[("id", True)] = Flight(table, ("id", True), 0.0)
    flight.end(FREED)
    table[("id", True)] = Flight(table, ("id", True), 0.0)
    flight.end(FREED)
    assert len(table) == 1


def test_finalisers_at_every_moment_lose_nobody():
    """The collector runs as often as it can, in threads that ask, drop their tickets in cycles, and follow."""
    world, before = World(), gc.get_threshold()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            query = Query(f"{chance.randrange(3)}", semantic=False, scope=f"{chance.randrange(4)}")
            found = world.dispatcher.begin(query)
            if isinstance(found, Ticket):
                if chance.random() < 0.2:
                    world.dispatcher.finish(found, None)
                else:
                    cycle: list[Any] = [found]
                    cycle.append(cycle)
                    del cycle
            del found
            # Else the ticket of one who sleeps now would be collected only by one who is awake.
            _ = [[] for _ in range(20)]

    gc.set_threshold(7, 1, 1)
    try:
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
        for thread in threads:
            thread.start()
        collects = time.monotonic() + 60
        while any(thread.is_alive() for thread in threads):
            gc.collect()
            assert time.monotonic() < collects
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert world.left_nothing()
