"""Single flight as its followers see it: how long they wait, for whom, and what stays of it."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from typing import Any

import pytest
from fakes import FakeLimiter
from flights import COST, QUERY, World, settled, tasks_of, virtual_world
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    ConfigError,
    Cost,
    Dispatcher,
    LimitExceeded,
    Query,
    Ticket,
    TokenLimiter,
)
from dispatch_core.flight import Flight

# Followers


def test_a_cancelled_follower_leaves_nothing_behind():
    async def main() -> None:
        world = virtual_world()
        leader, *others = tasks_of(world, 10)
        await asyncio.sleep(0.5)
        (flight,) = world.flights
        for task in others[:5]:
            task.cancel()
        await settled()
        assert len(flight.waiting) == 4
        assert await asyncio.gather(leader, *others[5:]) == [b"answer"] * 5
        assert (world.calls, world.left_nothing(), flight.waiting) == (1, True, {})

    in_virtual_time(main())


def test_a_follower_cancelled_in_the_moment_it_could_lead_passes_it_on():
    async def main() -> None:
        world = virtual_world()
        leader = await world.dispatcher.abegin(QUERY)
        first, *others = tasks_of(world, 5)
        await settled()
        world.dispatcher.abort(leader)
        first.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 4
        assert (first.cancelled(), world.calls, world.left_nothing()) == (True, 1, True)

    in_virtual_time(main())


def test_nobody_waits_longer_than_the_flight_timeout():
    async def main() -> None:
        world, start = virtual_world(flight_timeout=7), virtual_now()
        ticket = await world.dispatcher.abegin(QUERY)
        assert await asyncio.gather(*tasks_of(world, 10)) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(8, abs=0.01)
        assert world.calls == 10
        await world.dispatcher.afinish(ticket, b"late")
        assert world.left_nothing()

    in_virtual_time(main())


def test_the_flight_timeout_is_for_all_leaders_together():
    async def main() -> None:
        world, start = virtual_world(flight_timeout=5), virtual_now()
        world.acall = lambda: asyncio.sleep(2)
        world.outcomes = [ValueError("down")] * 9
        done = await asyncio.gather(*tasks_of(world, 5), return_exceptions=True)
        assert [type(one) for one in done] == [ValueError] * 5
        # The third leads from the fourth second on; the others waited for five and go.
        assert virtual_now() - start == pytest.approx(7, abs=0.01)

    in_virtual_time(main())


def test_an_old_flight_is_followed_by_a_new_one():
    async def main() -> None:
        world = virtual_world(flight_timeout=5)
        slow = await world.dispatcher.abegin(QUERY)
        await asyncio.sleep(6)
        tasks = tasks_of(world, 10)
        await asyncio.sleep(0.5)
        # Whoever has the answer first has it for all.
        await world.dispatcher.afinish(slow, b"slow, but first")
        assert await asyncio.gather(*tasks) == [b"answer"] + [b"slow, but first"] * 9
        assert (world.calls, world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_waiting_behind_a_leader_in_the_queue_is_waiting_in_the_queue():
    async def main() -> None:
        limiter = TokenLimiter(concurrency=1, clock=virtual_now)
        world, start = virtual_world(limiter=limiter), virtual_now()
        busy = await limiter.aacquire(COST)
        leader = asyncio.create_task(world.aask())
        await settled()
        with pytest.raises(LimitExceeded):
            await world.aask(timeout=3)
        assert virtual_now() - start == pytest.approx(3, abs=0.01)
        busy.settle()
        assert await leader == b"answer"
        assert world.left_nothing()

    in_virtual_time(main())


def test_waiting_for_an_answer_under_way_is_not():
    async def main() -> None:
        world = virtual_world()
        world.acall = lambda: asyncio.sleep(20)
        leader = asyncio.create_task(world.aask())
        await settled()
        assert await world.aask(timeout=3) == await world.aask(timeout=0) == await leader == b"answer"
        assert world.calls == 1

    in_virtual_time(main())


def test_what_was_waited_behind_others_is_no_longer_there_to_wait():
    async def main() -> None:
        world = virtual_world()
        admitted = asyncio.Event()
        usual = world.limiter.aacquire

        async def slow(cost: Cost, *, timeout: float | None = None) -> Any:
            await admitted.wait()
            return await usual(cost, timeout=timeout)

        world.limiter.aacquire = slow
        world.outcomes = [ValueError("down")]
        leader = asyncio.create_task(world.aask(timeout=9))
        await settled()
        follower = asyncio.create_task(world.aask(timeout=5))
        endless = asyncio.create_task(world.aask())
        await asyncio.sleep(2)
        admitted.set()
        world.limiter.aacquire = usual
        await asyncio.gather(leader, return_exceptions=True)
        await asyncio.gather(follower, endless)
        assert world.limiter.timeouts == [9, pytest.approx(3, abs=0.01)]

    in_virtual_time(main())


# Nobody waits for himself


def test_a_thread_does_not_wait_for_itself():
    dispatcher = World().dispatcher
    first, second = dispatcher.begin(QUERY), dispatcher.begin(QUERY)
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    dispatcher.finish(second, b"second")
    dispatcher.finish(first, b"first")
    assert dispatcher.begin(QUERY).entry.payload == b"first"


async def test_a_task_does_not_wait_for_itself_nor_its_thread_for_the_loop():
    world = World()
    first, second = await world.dispatcher.abegin(QUERY), await world.dispatcher.abegin(QUERY)
    third = world.dispatcher.begin(QUERY)
    for ticket in (first, second, third):
        assert isinstance(ticket, Ticket)
        world.dispatcher.abort(ticket)
    assert world.left_nothing()


def test_a_loop_does_not_wait_for_the_thread_it_runs_in():
    dispatcher = World().dispatcher
    first = dispatcher.begin(QUERY)
    assert isinstance(asyncio.run(dispatcher.abegin(QUERY)), Ticket)
    dispatcher.abort(first)


# Without


def test_without_single_flight_everybody_goes():
    async def main() -> None:
        world = virtual_world(single_flight=False)
        assert await asyncio.gather(*tasks_of(world, 20)) == [b"answer"] * 20
        assert (world.calls, world.dispatcher.stats().shared) == (20, 0)
        assert world.left_nothing()

    in_virtual_time(main())


def test_without_a_cache_everybody_goes():
    async def main() -> None:
        dispatcher = Dispatcher(limiter=FakeLimiter())
        tickets = await asyncio.gather(*(dispatcher.abegin(QUERY, COST, timeout=4) for _ in range(3)))
        assert all(ticket.reservation for ticket in tickets)
        assert dispatcher.limiter.timeouts == [4, 4, 4]

    in_virtual_time(main())


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_flight_timeout_is_positive(seconds):
    with pytest.raises(ConfigError, match="flight_timeout"):
        Dispatcher(flight_timeout=seconds)


# Nothing stays


def test_nothing_stays_of_a_flight():
    async def main() -> None:
        gc.collect()
        others = {id(thing) for thing in gc.get_objects() if type(thing) is Flight}
        world, ended = virtual_world(), []
        released = asyncio.Event()

        async def worker() -> None:
            """Lives on after its questions."""
            for number in range(20):
                await world.aask(Query(f"{number}", semantic=False))
            ended.append(True)
            await released.wait()

        tasks = [asyncio.create_task(worker()) for _ in range(10)]
        await asyncio.sleep(0.5)
        (flight,) = world.flights
        gone = weakref.ref(flight)
        del flight
        await asyncio.sleep(60)
        assert (len(ended), world.calls, world.left_nothing()) == (10, 20, True)
        gc.collect()
        assert gone() is None
        # What watched the leaders' tasks is gone, too: else a worker would gather one callback per question.
        assert {id(thing) for thing in gc.get_objects() if type(thing) is Flight} <= others
        assert [task._callbacks for task in tasks] == [None] * 10
        released.set()
        await asyncio.gather(*tasks)

    gc.collect()
    in_virtual_time(main())


def test_nothing_stays_of_a_dispatcher():
    world = World()
    world.ask()
    gone = weakref.ref(world.dispatcher._flights)
    del world
    gc.collect()
    assert gone() is None
