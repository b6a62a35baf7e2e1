"""Single flight: of all who ask the same question at one moment, one asks the model, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import Clock, CountingEmbedder, FakeLimiter, FlakyStore
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    ConfigError,
    Cost,
    Dispatcher,
    LimitExceeded,
    Match,
    MemoryStore,
    Query,
    SemanticCache,
    StoreError,
    Threshold,
    Ticket,
    TokenLimiter,
    Usage,
)
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core._wake import Sleeper
from dispatch_core.flight import FREED, Flight

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
COST = Cost(10, 20)
USAGE = Usage(3, 4)


class World:
    """A dispatcher and a model that counts its calls, of which each takes a second."""

    def __init__(self, *, store: Any = None, limiter: Any = None, **settings: Any) -> None:
        self.embedder = CountingEmbedder()
        self.store = MemoryStore() if store is None else store
        self.limiter = FakeLimiter() if limiter is None else limiter
        cache = SemanticCache(self.embedder, self.store, policy=Threshold(0.5))
        self.dispatcher = Dispatcher(cache, self.limiter, **settings)
        self.calls = 0
        self.outcomes: list[bytes | Exception | None] = []
        self.otherwise: bytes | None = b"answer"
        self.call: Callable[[], None] = lambda: None
        self.acall: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(1)

    def ask(self, query: Query = QUERY, timeout: float | None = None) -> bytes | None:
        return run(self._ask(query, timeout))

    async def aask(self, query: Query = QUERY, timeout: float | None = None) -> bytes | None:
        return await arun(self._ask(query, timeout))

    def _ask(self, query: Query, timeout: float | None) -> Flow[bytes | None]:
        dispatcher = self.dispatcher
        found = yield from step(dispatcher.begin, dispatcher.abegin, query, COST, timeout=timeout)
        if isinstance(found, Match):
            return found.entry.payload
        try:
            self.calls += 1
            outcome = self.outcomes.pop(0) if self.outcomes else self.otherwise
            yield from step(self.call, self.acall)
            if isinstance(outcome, Exception):
                raise outcome
        except BaseException:
            dispatcher.abort(found)
            raise
        yield from step(dispatcher.finish, dispatcher.afinish, found, outcome, USAGE)
        return outcome

    @property
    def flights(self) -> list[Flight]:
        return list(self.dispatcher._flights._table.values())

    @property
    def waiting(self) -> int:
        return sum(len(flight.waiting) for flight in self.flights)

    def left_nothing(self) -> bool:
        return not self.flights and not self.dispatcher._under_way


def _virtual(**settings: Any) -> World:
    # Bound to the loop, for the thread that writes asks for the time too.
    return World(**settings, clock=asyncio.get_running_loop().time)


def _tasks(world: World, number: int, query: Query = QUERY) -> list[asyncio.Task[bytes | None]]:
    return [asyncio.create_task(world.aask(query)) for _ in range(number)]


async def _settled() -> None:
    """Everybody has gone as far as he can at this moment."""
    for _ in range(20):
        await asyncio.sleep(0)


def _until(there: Callable[[], bool]) -> None:
    """Whatever the test waits for will happen; a minute later it has failed."""
    give_up = time.monotonic() + 60
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0)


# One call


def test_of_two_hundred_tasks_one_asks():
    async def main() -> World:
        world, start = _virtual(), virtual_now()
        assert await asyncio.gather(*_tasks(world, 200)) == [b"answer"] * 200
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        return world

    world = in_virtual_time(main())
    assert (world.calls, world.embedder.texts, len(world.limiter.given)) == (1, [QUERY.text], 1)
    stats = world.dispatcher.stats()
    assert (stats.misses, stats.shared, stats.hits, stats.lookups) == (1, 199, 199, 200)
    assert (stats.saved, stats.spent, stats.stored) == (Usage(3 * 199, 4 * 199), USAGE, 1)
    assert "0 exact + 0 semantic + 199 shared hits" in str(stats)
    assert "shared answers" in stats._repr_html_()
    assert world.left_nothing()


def test_of_two_hundred_threads_one_asks():
    world = World()
    world.call = lambda: _until(lambda: world.waiting == 199)
    with ThreadPoolExecutor(200) as threads:
        jobs = [threads.submit(world.ask) for _ in range(200)]
        assert [job.result() for job in jobs] == [b"answer"] * 200
    assert (world.calls, world.embedder.texts, world.dispatcher.stats().shared) == (1, [QUERY.text], 199)
    assert world.left_nothing()


@pytest.mark.parametrize("leader", ["thread", "task"])
def test_of_threads_and_the_tasks_of_two_loops_one_asks(leader):
    world = World()
    goes = threading.Event()

    def answer() -> None:
        goes.set()
        _until(lambda: world.waiting == 200)

    world.call = answer
    world.acall = lambda: asyncio.to_thread(answer)

    async def many(number: int) -> list[bytes | None]:
        return await asyncio.gather(*_tasks(world, number))

    with ThreadPoolExecutor(120) as threads:
        first = threads.submit(world.ask) if leader == "thread" else threads.submit(asyncio.run, world.aask())
        assert goes.wait(60)
        jobs = [threads.submit(asyncio.run, many(50)) for _ in range(2)]
        alone = [threads.submit(world.ask) for _ in range(100)]
        assert [job.result() for job in jobs] == [[b"answer"] * 50] * 2
        assert {job.result() for job in [*alone, first]} == {b"answer"}
    assert (world.calls, world.embedder.texts, world.dispatcher.stats().shared) == (1, [QUERY.text], 200)
    assert world.left_nothing()


@pytest.mark.parametrize(
    "other",
    [
        Query(QUERY.text, scope="another"),
        Query(QUERY.text, namespace="theirs"),
        Query(QUERY.text, semantic=False),
        NEAR,
    ],
)
def test_other_questions_are_other_flights(other):
    async def main() -> None:
        world = _virtual()
        tasks = [*_tasks(world, 5), *_tasks(world, 5, other)]
        await asyncio.sleep(0.5)
        assert (world.calls, len(world.flights)) == (2, 2)
        assert await asyncio.gather(*tasks) == [b"answer"] * 10
        assert world.left_nothing()

    in_virtual_time(main())


def test_the_same_text_in_another_spelling_is_the_same_question():
    async def main() -> None:
        world = _virtual()
        await asyncio.gather(*_tasks(world, 2), world.aask(Query(f" {QUERY.text}\r\n")))
        assert world.calls == 1

    in_virtual_time(main())


def test_a_shared_answer_says_what_it_is():
    async def main() -> None:
        world = _virtual(store=FlakyStore())
        dispatcher = world.dispatcher
        leader = await dispatcher.abegin(QUERY)
        follower = asyncio.create_task(dispatcher.abegin(QUERY))
        await _settled()
        await dispatcher.afinish(leader, b"answer", USAGE)
        match = await follower
        assert (match.kind, match.exact, match.score, match.entry.payload) == ("flight", True, 1.0, b"answer")
        await dispatcher.adiscard(match)
        stats = dispatcher.stats()
        assert (stats.shared, stats.misses, stats.saved) == (0, 2, Usage(0, 0))
        assert dispatcher.flush(60)

    in_virtual_time(main())


def test_followers_share_what_the_leader_finds():
    async def main() -> None:
        world = _virtual(store=_Slow(), write_behind=False)
        await world.aask(NEAR)
        assert await asyncio.gather(*_tasks(world, 50)) == [b"answer"] * 50
        assert (world.calls, len(world.embedder.texts)) == (1, 2)
        stats = world.dispatcher.stats()
        assert (stats.semantic_hits, stats.shared, stats.misses) == (50, 0, 1)

    in_virtual_time(main())


def test_nobody_waits_for_the_write():
    store, gate = FlakyStore(), threading.Event()
    put = store.put
    store.put = lambda entry, vector: gate.wait(60) and put(entry, vector)

    async def main() -> None:
        world = _virtual(store=store)
        assert await asyncio.gather(*_tasks(world, 5)) == [b"answer"] * 5
        assert (await world.aask(), world.calls, len(store)) == (b"answer", 1, 0)
        gate.set()
        assert world.dispatcher.flush(60)
        assert (len(store), world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_without_writing_behind_they_do_not_wait_for_it_either():
    async def main() -> None:
        world = _virtual(store=FlakyStore(), write_behind=False)
        gate = asyncio.Event()
        put = world.store.put

        async def aput(entry: Any, vector: Any) -> None:
            await gate.wait()
            put(entry, vector)

        world.store.aput = aput
        tasks = _tasks(world, 5)
        await asyncio.sleep(2)
        assert [task.done() for task in tasks] == [False, True, True, True, True]
        # Between the flight and the end of the write.
        assert await world.aask() == b"answer"
        gate.set()
        await asyncio.gather(*tasks)
        assert (world.calls, world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_a_broken_cache_shares_its_flights():
    async def main() -> None:
        world = _virtual(store=FlakyStore())
        world.store.error = StoreError("down")
        for _ in range(4):
            assert await asyncio.gather(*_tasks(world, 20)) == [b"answer"] * 20
            assert world.dispatcher.flush(60)
        assert world.calls == 4
        assert world.left_nothing()

    in_virtual_time(main())


def test_with_raise_everybody_hears_of_a_broken_cache():
    async def main() -> None:
        world = _virtual(store=FlakyStore(), on_error="raise")
        world.store.error = StoreError("down")
        done = await asyncio.gather(*_tasks(world, 20), return_exceptions=True)
        assert {type(error) for error in done} == {StoreError}
        assert (world.calls, world.left_nothing()) == (0, True)

    in_virtual_time(main())


# The leader fails


def test_after_a_failure_the_next_leads():
    async def main() -> None:
        world = _virtual()
        world.outcomes = [ValueError("the model is down")]
        first, *others = await asyncio.gather(*_tasks(world, 200), return_exceptions=True)
        assert isinstance(first, ValueError)
        assert others == [b"answer"] * 199
        assert (world.calls, world.dispatcher.stats().shared) == (2, 198)
        assert world.left_nothing()

    in_virtual_time(main())


def test_after_a_failure_in_a_thread_the_next_thread_leads():
    world = World()
    world.outcomes = [ValueError("the model is down")]
    world.call = lambda: _until(lambda: world.waiting == 20 - world.calls)
    with ThreadPoolExecutor(20) as threads:
        jobs = [threads.submit(world.ask) for _ in range(20)]
        failed = [job for job in jobs if job.exception()]
    assert (len(failed), world.calls, world.dispatcher.stats().shared) == (1, 2, 18)
    assert world.left_nothing()


def test_after_an_answer_not_worth_storing_all_go_each_for_himself():
    async def main() -> None:
        world, start = _virtual(), virtual_now()
        world.otherwise = None
        assert await asyncio.gather(*_tasks(world, 200)) == [None] * 200
        assert virtual_now() - start == pytest.approx(2, abs=0.01)
        assert (world.calls, len(world.limiter.given)) == (200, 200)
        assert world.embedder.texts == [QUERY.text]
        stats = world.dispatcher.stats()
        assert (stats.misses, stats.shared, stats.not_stored) == (200, 0, 200)
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_leader_that_is_refused_a_place_frees_the_others():
    async def main() -> None:
        world = _virtual()
        world.limiter.error = LimitExceeded("full", 3.0)
        done = await asyncio.gather(*_tasks(world, 20), return_exceptions=True)
        assert {type(error) for error in done} == {LimitExceeded}
        assert world.left_nothing()

    in_virtual_time(main())


@pytest.mark.parametrize("where", ["get", "search", "reservation"])
def test_a_leader_cancelled_before_it_has_its_ticket_frees_the_others(where):
    async def main() -> None:
        world = _virtual(store=FlakyStore())
        part, name = (world.limiter, "aacquire") if where == "reservation" else (world.store, f"a{where}")
        usual = getattr(part, name)

        async def forever(*args: Any, **kwargs: Any) -> None:
            setattr(part, name, usual)
            await asyncio.sleep(1e9)

        setattr(part, name, forever)
        leader, *others = _tasks(world, 10)
        await asyncio.sleep(0.5)
        assert world.waiting == 9
        leader.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 9
        assert world.dispatcher.flush(60)
        assert (leader.cancelled(), world.calls, world.left_nothing()) == (True, 1, True)

    in_virtual_time(main())


def test_a_cancelled_task_whose_ticket_lives_on_in_its_traceback_frees_the_others():
    async def main() -> None:
        world, kept = _virtual(), []

        async def careless() -> None:
            kept.append(await world.dispatcher.abegin(QUERY, COST))
            await asyncio.sleep(1e6)

        leader = asyncio.create_task(careless())
        await _settled()
        start, others = virtual_now(), _tasks(world, 10)
        await asyncio.sleep(1)
        leader.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(2, abs=0.01)
        assert (world.calls, len(kept)) == (1, 1)
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_newcomer_sees_that_the_leaders_task_was_cancelled():
    async def main() -> None:
        world, kept = _virtual(), []

        async def careless() -> None:
            kept.append(await world.dispatcher.abegin(QUERY, COST))
            await asyncio.sleep(1e6)

        leader = asyncio.create_task(careless())
        await _settled()
        leader.cancel()
        await _settled()
        start = virtual_now()
        assert await asyncio.gather(*_tasks(world, 10)) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        assert (world.calls, len(kept)) == (1, 1)

    in_virtual_time(main())


def test_a_task_that_ended_well_may_have_handed_its_ticket_on():
    async def main() -> None:
        world = _virtual()
        ticket = await asyncio.create_task(world.dispatcher.abegin(QUERY))
        others = _tasks(world, 10)
        await asyncio.sleep(5)
        await world.dispatcher.afinish(ticket, b"handed on")
        assert await asyncio.gather(*others) == [b"handed on"] * 10
        assert world.calls == 0

    in_virtual_time(main())


def test_a_dropped_ticket_frees_the_others():
    async def main() -> None:
        world = _virtual()
        ticket = await world.dispatcher.abegin(QUERY)
        others = _tasks(world, 10)
        await _settled()
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
        _until(lambda: world.waiting == 4)
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
    _until(lambda: len(world.flights) == 1)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask)
        _until(lambda: world.waiting == 1)
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
        _until(lambda: world.waiting == 1)
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
        _until(lambda: world.waiting == 1)
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


# Followers


def test_a_cancelled_follower_leaves_nothing_behind():
    async def main() -> None:
        world = _virtual()
        leader, *others = _tasks(world, 10)
        await asyncio.sleep(0.5)
        (flight,) = world.flights
        for task in others[:5]:
            task.cancel()
        await _settled()
        assert len(flight.waiting) == 4
        assert await asyncio.gather(leader, *others[5:]) == [b"answer"] * 5
        assert (world.calls, world.left_nothing(), flight.waiting) == (1, True, {})

    in_virtual_time(main())


def test_a_follower_cancelled_in_the_moment_it_could_lead_passes_it_on():
    async def main() -> None:
        world = _virtual()
        leader = await world.dispatcher.abegin(QUERY)
        first, *others = _tasks(world, 5)
        await _settled()
        world.dispatcher.abort(leader)
        first.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 4
        assert (first.cancelled(), world.calls, world.left_nothing()) == (True, 1, True)

    in_virtual_time(main())


def test_nobody_waits_longer_than_the_flight_timeout():
    async def main() -> None:
        world, start = _virtual(flight_timeout=7), virtual_now()
        ticket = await world.dispatcher.abegin(QUERY)
        assert await asyncio.gather(*_tasks(world, 10)) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(8, abs=0.01)
        assert world.calls == 10
        await world.dispatcher.afinish(ticket, b"late")
        assert world.left_nothing()

    in_virtual_time(main())


def test_the_flight_timeout_is_for_all_leaders_together():
    async def main() -> None:
        world, start = _virtual(flight_timeout=5), virtual_now()
        world.acall = lambda: asyncio.sleep(2)
        world.outcomes = [ValueError("down")] * 9
        done = await asyncio.gather(*_tasks(world, 5), return_exceptions=True)
        assert [type(one) for one in done] == [ValueError] * 5
        # The third leads from the fourth second on; the others waited for five and go.
        assert virtual_now() - start == pytest.approx(7, abs=0.01)

    in_virtual_time(main())


def test_an_old_flight_is_followed_by_a_new_one():
    async def main() -> None:
        world = _virtual(flight_timeout=5)
        slow = await world.dispatcher.abegin(QUERY)
        await asyncio.sleep(6)
        tasks = _tasks(world, 10)
        await asyncio.sleep(0.5)
        # Whoever has the answer first has it for all.
        await world.dispatcher.afinish(slow, b"slow, but first")
        assert await asyncio.gather(*tasks) == [b"answer"] + [b"slow, but first"] * 9
        assert (world.calls, world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_waiting_behind_a_leader_in_the_queue_is_waiting_in_the_queue():
    async def main() -> None:
        limiter = TokenLimiter(concurrency=1, clock=virtual_now)
        world, start = _virtual(limiter=limiter), virtual_now()
        busy = await limiter.aacquire(COST)
        leader = asyncio.create_task(world.aask())
        await _settled()
        with pytest.raises(LimitExceeded):
            await world.aask(timeout=3)
        assert virtual_now() - start == pytest.approx(3, abs=0.01)
        busy.settle()
        assert await leader == b"answer"
        assert world.left_nothing()

    in_virtual_time(main())


def test_waiting_for_an_answer_under_way_is_not():
    async def main() -> None:
        world = _virtual()
        world.acall = lambda: asyncio.sleep(20)
        leader = asyncio.create_task(world.aask())
        await _settled()
        assert await world.aask(timeout=3) == await world.aask(timeout=0) == await leader == b"answer"
        assert world.calls == 1

    in_virtual_time(main())


def test_what_was_waited_behind_others_is_no_longer_there_to_wait():
    async def main() -> None:
        world = _virtual()
        admitted = asyncio.Event()
        usual = world.limiter.aacquire

        async def slow(cost: Cost, *, timeout: float | None = None) -> Any:
            await admitted.wait()
            return await usual(cost, timeout=timeout)

        world.limiter.aacquire = slow
        world.outcomes = [ValueError("down")]
        leader = asyncio.create_task(world.aask(timeout=9))
        await _settled()
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
        world = _virtual(single_flight=False)
        assert await asyncio.gather(*_tasks(world, 20)) == [b"answer"] * 20
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
        world, ended = _virtual(), []
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


# Every await, every line, every order


async def _await_by_await(work: Coroutine[Any, Any, Any], stop: int) -> bool:
    """Drive by hand, and cancel at the await number ``stop``. False if it ended before."""
    for number in range(1_000):
        try:
            waits_for = work.send(None)
        except StopIteration:
            return False
        if number == stop:
            with pytest.raises(asyncio.CancelledError):
                work.throw(asyncio.CancelledError())
            return True
        if waits_for is None:
            await asyncio.sleep(0)
        else:
            waits_for._asyncio_future_blocking = False
            await asyncio.wait([waits_for])
    raise AssertionError("it never ends")


class _Slow(FlakyStore):
    """Every call gives the loop a turn."""

    async def _off(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.1)
        return call(*args, **kwargs)


@pytest.mark.parametrize("ahead", [0, 1, 3], ids=["leads", "follows", "follows behind others"])
@pytest.mark.parametrize("outcomes", [[], [None], [ValueError("down")]], ids=["answered", "unstorable", "failed"])
def test_a_cancellation_at_any_await_leaves_nothing_and_nobody_behind(ahead, outcomes):
    async def cancelled_at(stop: int) -> bool:
        world = _virtual(store=_Slow(), write_behind=False)
        world.outcomes = list(outcomes)
        others = _tasks(world, ahead)
        await asyncio.sleep(0.05)
        work = asyncio.create_task(_await_by_await(world.aask(), stop))
        await asyncio.sleep(0)
        others += _tasks(world, 3)
        with contextlib.suppress(ValueError):
            await work
        done = await asyncio.gather(*others, return_exceptions=True)
        assert all(one in (b"answer", None) or isinstance(one, ValueError) for one in done)
        assert world.left_nothing()
        return not work.exception() and work.result()

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
        world = _virtual(flight_timeout=5)
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
        await _settled()
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


# Streams


class _Form:
    """Texts as responses, as far as an exchange needs it."""

    name = "test"

    def encode(self, response: Any) -> bytes | None:
        return response.text.encode() or None

    def decode(self, match: Match) -> Any:
        return self._response(match.entry.payload.decode())

    def text(self, response: Any) -> str:
        return response.text

    def partial(self, response: Any, text: str, delta: str) -> Any:
        return self._response(text, delta)

    def _response(self, text: str, delta: str | None = None) -> Any:
        from llama_index.core.base.llms.types import CompletionResponse

        return CompletionResponse(text=text, delta=delta)


def _exchange(world: World) -> Any:
    pytest.importorskip("llama_index.core")
    from llamaindex_dispatch import exchange

    return exchange.Exchange(world.dispatcher, _Form(), exchange.Ask(QUERY, COST))


def _streamed(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    from llamaindex_dispatch import exchange

    monkeypatch.setattr(exchange, "announce", lambda match: None)
    form = _Form()

    async def chunks() -> Any:
        world.calls += 1
        for text in ("a", "an", "answer"):
            await asyncio.sleep(10)
            yield form._response(text)

    async def call() -> Any:
        return chunks()

    return _exchange(world).astream(call)


def test_followers_wait_for_the_whole_stream(monkeypatch):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = _virtual()

        async def reads() -> str:
            return [chunk.text async for chunk in _streamed(world, monkeypatch)][-1]

        assert await asyncio.gather(*(reads() for _ in range(20))) == ["answer"] * 20
        assert (world.calls, world.dispatcher.stats().shared) == (1, 19)

    in_virtual_time(main())


@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_abandoned_stream_frees_the_others(monkeypatch, how):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = _virtual()
        stream = _streamed(world, monkeypatch)
        await anext(stream)
        others = _tasks(world, 5)
        await asyncio.sleep(1)
        assert world.waiting == 5
        if how == "close":
            await stream.aclose()
        else:
            del stream
        start = virtual_now()
        assert await asyncio.gather(*others) == [b"answer"] * 5
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        assert (world.calls, world.left_nothing()) == (2, True)

    in_virtual_time(main())


def test_an_abandoned_stream_of_a_thread_frees_the_others():
    world = World()
    form = _Form()
    stream = _exchange(world).stream(lambda: (form._response(text) for text in ("a", "answer")))
    next(stream)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask)
        _until(lambda: world.waiting == 1)
        del stream
        assert job.result() == b"answer"
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_clock_that_stands_still_admits_all_the_same():
    world = World(clock=Clock())
    assert world.ask() == b"answer"
