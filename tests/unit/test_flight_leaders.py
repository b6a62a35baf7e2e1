"""Single flight when the leader fails, is cancelled, forgotten, or ends without a word: nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import FlakyStore
from flights import COST, QUERY, World, settled, tasks_of, until, virtual_world
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    LimitExceeded,
    Ticket,
)

# The leader fails


def test_after_a_failure_the_next_leads():
    async def main() -> None:
        world = virtual_world()
        world.outcomes = [ValueError("the model is down")]
        first, *others = await asyncio.gather(*tasks_of(world, 200), return_exceptions=True)
        assert isinstance(first, ValueError)
        assert others == [b"answer"] * 199
        assert (world.calls, world.dispatcher.stats().shared) == (2, 198)
        assert world.left_nothing()

    in_virtual_time(main())


def test_after_a_failure_in_a_thread_the_next_thread_leads():
    world = World()
    world.outcomes = [ValueError("the model is down")]
    world.call = lambda: until(lambda: world.waiting == 20 - world.calls)
    with ThreadPoolExecutor(20) as threads:
        jobs = [threads.submit(world.ask) for _ in range(20)]
        failed = [job for job in jobs if job.exception()]
    assert (len(failed), world.calls, world.dispatcher.stats().shared) == (1, 2, 18)
    assert world.left_nothing()


def test_after_an_answer_not_worth_storing_all_go_each_for_himself():
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        world.otherwise = None
        assert await asyncio.gather(*tasks_of(world, 200)) == [None] * 200
        assert virtual_now() - start == pytest.approx(2, abs=0.01)
        assert (world.calls, len(world.limiter.given)) == (200, 200)
        assert world.embedder.texts == [QUERY.text]
        stats = world.dispatcher.stats()
        assert (stats.misses, stats.shared, stats.not_stored) == (200, 0, 200)
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_leader_that_is_refused_a_place_frees_the_others():
    async def main() -> None:
        world = virtual_world()
        world.limiter.error = LimitExceeded("full", 3.0)
        done = await asyncio.gather(*tasks_of(world, 20), return_exceptions=True)
        assert {type(error) for error in done} == {LimitExceeded}
        assert world.left_nothing()

    in_virtual_time(main())


@pytest.mark.parametrize("where", ["get", "search", "reservation"])
def test_a_leader_cancelled_before_it_has_its_ticket_frees_the_others(where):
    async def main() -> None:
        world = virtual_world(store=FlakyStore())
        part, name = (world.limiter, "aacquire") if where == "reservation" else (world.store, f"a{where}")
        usual = getattr(part, name)

        async def forever(*args: Any, **kwargs: Any) -> None:
            setattr(part, name, usual)
            await asyncio.sleep(1e9)

        setattr(part, name, forever)
        leader, *others = tasks_of(world, 10)
        await asyncio.sleep(0.5)
        assert world.waiting == 9
        leader.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 9
        assert world.dispatcher.flush(60)
        assert (leader.cancelled(), world.calls, world.left_nothing()) == (True, 1, True)

    in_virtual_time(main())


def test_a_cancelled_task_whose_ticket_lives_on_in_its_traceback_frees_the_others():
    async def main() -> None:
        world, kept = virtual_world(), []

        async def careless() -> None:
            kept.append(await world.dispatcher.abegin(QUERY, COST))
            await asyncio.sleep(1e6)

        leader = asyncio.create_task(careless())
        await settled()
        start, others = virtual_now(), tasks_of(world, 10)
        await asyncio.sleep(1)
        leader.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(2, abs=0.01)
        assert (world.calls, len(kept)) == (1, 1)
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_newcomer_sees_that_the_leaders_task_was_cancelled():
    async def main() -> None:
        world, kept = virtual_world(), []

        async def careless() -> None:
            kept.append(await world.dispatcher.abegin(QUERY, COST))
            await asyncio.sleep(1e6)

        leader = asyncio.create_task(careless())
        await settled()
        leader.cancel()
        await settled()
        start = virtual_now()
        assert await asyncio.gather(*tasks_of(world, 10)) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        assert (world.calls, len(kept)) == (1, 1)

    in_virtual_time(main())


def test_a_task_that_ended_well_may_have_handed_its_ticket_on():
    async def main() -> None:
        world = virtual_world()
        ticket = await asyncio.create_task(world.dispatcher.abegin(QUERY))
        others = tasks_of(world, 10)
        await asyncio.sleep(5)
        await world.dispatcher.afinish(ticket, b"handed on")
        assert await asyncio.gather(*others) == [b"handed on"] * 10
        assert world.calls == 0

    in_virtual_time(main())


def test_a_dropped_ticket_frees_the_others():
    async def main() -> None:
        world = virtual_world()
        ticket = await world.dispatcher.abegin(QUERY)
        others = tasks_of(world, 10)
        await settled()
        assert world.waiting == 10
        del ticket
        assert await asyncio.gather(*others) == [b"answer"] * 10
        assert (world.calls, world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_a_ticket_dropped_in_a_cycle_frees_the_others_when_it_is_collected():
    world = World()
    cycle: list[Any] = [world.dispatcher.begin(QUERY)]
    cycle.append(cycle)
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(world.ask) for _ in range(4)]
        until(lambda: world.waiting == 4)
        del cycle
        gc.collect()
        assert [job.result() for job in jobs] == [b"answer"] * 4
    assert world.calls + world.dispatcher.stats().hits == 4
    assert world.left_nothing()


def test_a_thread_that_ends_without_a_word_frees_the_others():
    world, follows = World(), threading.Event()

    def careless() -> None:
        ticket = world.dispatcher.begin(QUERY)
        assert isinstance(ticket, Ticket)
        assert follows.wait(60)

    leader = threading.Thread(target=careless)
    leader.start()
    until(lambda: len(world.flights) == 1)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask)
        until(lambda: world.waiting == 1)
        follows.set()
        assert job.result() == b"answer"
    leader.join()
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_loop_that_ends_frees_the_others():
    world, leads = World(), threading.Event()
    world.call = leads.set

    async def main() -> None:
        task = asyncio.create_task(careless())
        while not world.waiting:
            await asyncio.sleep(0)
        assert not task.done()

    async def careless() -> None:
        ticket = await world.dispatcher.abegin(QUERY)
        leads.set()
        await asyncio.Event().wait()
        await world.dispatcher.afinish(ticket, b"never")

    with ThreadPoolExecutor(2) as threads:
        loop = threads.submit(asyncio.run, main())
        assert leads.wait(60)
        assert threads.submit(world.ask).result() == b"answer"
        loop.result()
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_newcomer_sees_that_the_leaders_loop_was_closed_under_it_and_frees_all():
    """The task is pending for ever, and somebody holds it: nothing is cancelled, nothing is dropped."""
    world, loop = World(), asyncio.new_event_loop()

    async def careless() -> None:
        ticket = await world.dispatcher.abegin(QUERY)
        await asyncio.Event().wait()
        await world.dispatcher.afinish(ticket, b"never")

    task = loop.create_task(careless())
    loop.run_until_complete(asyncio.sleep(0))
    with ThreadPoolExecutor(2) as threads:
        waits = threads.submit(world.ask)
        until(lambda: world.waiting == 1)
        loop.close()
        assert threads.submit(world.ask).result() == b"answer"
        assert waits.result() == b"answer"
    assert not task.done()
    task._log_destroy_pending = False
    assert world.left_nothing()


def test_a_child_process_waits_for_nobody_of_its_parent():
    world = World()
    ticket = world.dispatcher.begin(QUERY)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask)
        until(lambda: world.waiting == 1)
        child = os.fork()
        if child == 0:  # pragma: no cover
            ended = 1
            with contextlib.suppress(BaseException):
                other = threading.Thread(target=world.ask, daemon=True)
                other.start()
                other.join(20)
                world.dispatcher.abort(ticket)
                ended = 0 if world.calls == 1 and world.left_nothing() else 2
            os._exit(ended)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert world.waiting == 1
        world.dispatcher.finish(ticket, b"of the parent")
        assert job.result() == b"of the parent"
