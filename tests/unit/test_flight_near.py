"""Single flight of questions in other words: who asks the same while it is being answered gets that answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fakes import FlakyStore
from flights import COST, NEAR, QUERY, USAGE, World, settled, tasks_of, until, virtual_world, worded
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    Consensus,
    Cost,
    Decision,
    Guarded,
    LimitExceeded,
    Match,
    Query,
    StoreError,
    Threshold,
    Ticket,
    TokenLimiter,
    Usage,
)


class Pairs:
    """Only these are the same question."""

    neighbours = 4

    def __init__(self, *pairs: tuple[Query, Query]) -> None:
        self.pairs = [{one.text, other.text} for one, other in pairs]

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        hits = (match for match in candidates if {text, match.entry.text} in self.pairs)
        return Decision(next(hits, None), "told")


def wordings_of(world: World, numbers: Sequence[int]) -> list[asyncio.Task[bytes | None]]:
    return [asyncio.create_task(world.aask(worded(number))) for number in numbers]


# One call


def test_of_two_hundred_tasks_with_a_wording_each_one_asks():
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        assert await asyncio.gather(*wordings_of(world, range(200))) == [b"answer"] * 200
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        stats = world.dispatcher.stats()
        assert (world.calls, len(world.limiter.given), len(world.embedder.texts)) == (1, 1, 200)
        assert (stats.misses, stats.shared, stats.stored, stats.lookups) == (1, 199, 1, 200)
        assert (stats.saved, stats.spent) == (Usage(3 * 199, 4 * 199), USAGE)
        assert world.left_nothing()

    in_virtual_time(main())


def test_of_two_hundred_threads_with_ten_wordings_one_asks():
    world = World()
    world.call = lambda: until(lambda: world.waiting == 199)
    with ThreadPoolExecutor(200) as threads:
        jobs = [threads.submit(world.ask, worded(number % 10)) for number in range(200)]
        assert [job.result() for job in jobs] == [b"answer"] * 200
    assert (world.calls, len(world.embedder.texts), world.dispatcher.stats().shared) == (1, 10, 199)
    assert world.left_nothing()


@pytest.mark.parametrize("leader", ["thread", "task"])
def test_of_threads_and_the_tasks_of_two_loops_one_asks(leader):
    world, goes = World(), threading.Event()

    def answer() -> None:
        goes.set()
        until(lambda: world.waiting == 60)

    world.call = answer
    world.acall = lambda: asyncio.to_thread(answer)

    async def many(numbers: range) -> list[bytes | None]:
        return await asyncio.gather(*wordings_of(world, numbers))

    with ThreadPoolExecutor(30) as threads:
        first = threads.submit(world.ask) if leader == "thread" else threads.submit(asyncio.run, world.aask())
        assert goes.wait(60)
        jobs = [threads.submit(asyncio.run, many(range(start, start + 20))) for start in (0, 20)]
        alone = [threads.submit(world.ask, worded(number)) for number in range(40, 60)]
        assert [job.result() for job in jobs] == [[b"answer"] * 20] * 2
        assert {job.result() for job in [*alone, first]} == {b"answer"}
    assert (world.calls, world.left_nothing()) == (1, True)


def test_an_answer_in_other_words_says_how_near_it_is():
    async def main() -> None:
        world = virtual_world()
        dispatcher = world.dispatcher
        leader = await dispatcher.abegin(QUERY)
        near, equal = (asyncio.create_task(dispatcher.abegin(NEAR)) for _ in range(2))
        await settled()
        await dispatcher.afinish(leader, b"answer", USAGE)
        one, other = await near, await equal
        one_vector, other_vector = np.asarray(world.embedder.embed([QUERY.text, NEAR.text]))
        assert (one.kind, one.exact, one.entry.text) == ("flight", False, QUERY.text)
        assert one.score == pytest.approx(float(one_vector @ other_vector))
        # Who follows the one behind gets what he got.
        assert (other.kind, other.exact, other.score) == ("flight", False, one.score)
        assert (dispatcher.stats().shared, world.left_nothing()) == (2, True)

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        (None, Query(NEAR.text, scope="another")),
        (None, Query(NEAR.text, namespace="theirs")),
        (None, Query(NEAR.text, semantic=False)),
        (None, Query("which bikes fit a tall rider")),
        (Threshold(0.99), NEAR),
        (Guarded(0.5), Query(f"{QUERY.text} not")),
        (Consensus(threshold=0.99), NEAR),
    ],
)
def test_other_questions_do_not_wait(policy, other):
    async def main() -> None:
        world = virtual_world(policy=policy)
        tasks = [*tasks_of(world, 5), *tasks_of(world, 5, other)]
        await asyncio.sleep(0.5)
        assert (world.calls, len(world.flights)) == (2, 2)
        assert await asyncio.gather(*tasks) == [b"answer"] * 10
        assert world.left_nothing()

    in_virtual_time(main())


def test_a_consensus_takes_the_nearest_under_way_as_a_near_duplicate():
    async def main() -> None:
        world = virtual_world(policy=Consensus(threshold=0.7, guards=()))
        assert await asyncio.gather(*wordings_of(world, range(50))) == [b"answer"] * 50
        assert world.calls == 1

    in_virtual_time(main())


def test_without_single_flight_no_wording_waits():
    async def main() -> None:
        world = virtual_world(single_flight=False)
        await asyncio.gather(*wordings_of(world, range(20)))
        assert (world.calls, world.left_nothing()) == (20, True)

    in_virtual_time(main())


def test_an_answer_that_came_from_a_third_question_is_not_passed_on():
    first, second, third = worded(1), worded(2), worded(3)

    async def main() -> None:
        world = virtual_world(policy=Pairs((first, second), (second, third)))
        tasks = [asyncio.create_task(world.aask(query)) for query in (first, second, third)]
        await asyncio.sleep(0.5)
        assert (world.calls, world.waiting) == (2, 1)
        await asyncio.gather(*tasks)
        assert (world.calls, world.dispatcher.stats().shared) == (2, 1)

    in_virtual_time(main())


@pytest.mark.parametrize("same", [True, False])
def test_an_answer_from_a_third_question_that_came_while_waiting_is_compared_first(same):
    """The second begins to wait behind the first after the third began to wait behind the second."""
    first, second, third = worded(1), worded(2), worded(3)

    async def main() -> None:
        pairs = Pairs((second, third), *([(first, third)] if same else []))
        world = virtual_world(policy=pairs)
        one, two = [await asyncio.create_task(world.dispatcher.abegin(query)) for query in (first, second)]
        # Else the third would wait behind the first at once.
        ahead, two.lead.flight.behind = one.lead.flight, None
        one.lead.flight.behind = two.lead.flight
        waits = asyncio.create_task(world.aask(third))
        await settled()
        assert world.waiting == 1
        one.lead.flight.behind, two.lead.flight.behind = None, ahead
        await world.dispatcher.afinish(one, b"first", USAGE)
        found = await world.dispatcher.abegin(first)
        two.lead.end(found)
        assert await waits == (b"first" if same else b"answer")
        assert (world.calls, world.dispatcher.stats().shared) == ((0, 1) if same else (1, 0))

    in_virtual_time(main())


# The leader fails


def test_after_a_failure_the_oldest_of_those_behind_goes():
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        world.outcomes = [ValueError("the model is down")]
        first, *others = await asyncio.gather(*wordings_of(world, range(200)), return_exceptions=True)
        assert isinstance(first, ValueError)
        assert others == [b"answer"] * 199
        assert (world.calls, world.dispatcher.stats().shared) == (2, 198)
        assert virtual_now() - start == pytest.approx(2, abs=0.01)
        assert world.left_nothing()

    in_virtual_time(main())


def test_after_a_failure_in_a_thread_the_others_are_answered():
    world = World()
    world.outcomes = [ValueError("the model is down")]
    world.call = lambda: until(lambda: world.waiting == 20 - world.calls)
    with ThreadPoolExecutor(20) as threads:
        jobs = [threads.submit(world.ask, worded(number)) for number in range(20)]
        failed = [job for job in jobs if job.exception()]
    assert (len(failed), world.calls, world.dispatcher.stats().shared) == (1, 2, 18)
    assert world.left_nothing()


def test_after_an_answer_not_worth_storing_all_go_each_for_himself():
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        world.otherwise = None
        assert await asyncio.gather(*wordings_of(world, [*range(20)] * 2)) == [None] * 40
        assert virtual_now() - start == pytest.approx(3, abs=0.01)
        assert (world.calls, world.left_nothing()) == (40, True)

    in_virtual_time(main())


@pytest.mark.parametrize("how", ["abort", "drop", "cancel"])
def test_a_leader_that_gives_up_frees_those_behind(how):
    async def main() -> None:
        world, kept = virtual_world(), []

        async def careless() -> None:
            kept.append(await world.dispatcher.abegin(QUERY, COST))
            await asyncio.sleep(1e6)

        leader = asyncio.create_task(careless())
        await settled()
        others = [*wordings_of(world, range(5)), *wordings_of(world, range(5))]
        await settled()
        assert (world.calls, world.waiting) == (0, 10)
        start = virtual_now()
        if how == "abort":
            world.dispatcher.abort(kept[0])
        elif how == "drop":
            kept.clear()
        else:
            leader.cancel()
        assert await asyncio.gather(*others) == [b"answer"] * 10
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        assert (world.calls, world.left_nothing()) == (1, True)
        leader.cancel()

    in_virtual_time(main())


def test_one_that_is_cancelled_behind_another_leaves_nothing_and_hands_on_its_lead():
    async def main() -> None:
        world = virtual_world()
        leader = asyncio.create_task(world.aask())
        await settled()
        behind, *equals = tasks_of(world, 5, NEAR)
        await settled()
        behind.cancel()
        await settled()
        assert (world.calls, world.waiting) == (1, 4)
        assert await asyncio.gather(leader, *equals) == [b"answer"] * 5
        assert (world.calls, behind.cancelled(), world.left_nothing()) == (1, True, True)

    in_virtual_time(main())


def test_a_loop_that_ends_frees_those_behind():
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
        assert threads.submit(world.ask, NEAR).result() == b"answer"
        loop.result()
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_child_process_waits_behind_nobody_of_its_parent():
    world = World()
    ticket = world.dispatcher.begin(QUERY)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask, NEAR)
        until(lambda: world.waiting == 1)
        child = os.fork()
        if child == 0:  # pragma: no cover
            ended = 1
            with contextlib.suppress(BaseException):
                other = threading.Thread(target=world.ask, args=(NEAR,), daemon=True)
                other.start()
                other.join(20)
                world.dispatcher.abort(ticket)
                ended = 0 if world.calls == 1 and world.left_nothing() else 2
            os._exit(ended)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert world.waiting == 1
        world.dispatcher.finish(ticket, b"of the parent")
        assert job.result() == b"of the parent"


# How long


def test_nobody_waits_behind_another_longer_than_the_flight_timeout():
    async def main() -> None:
        world, start = virtual_world(flight_timeout=7), virtual_now()
        ticket = await world.dispatcher.abegin(QUERY)
        assert await asyncio.gather(*wordings_of(world, range(5))) == [b"answer"] * 5
        assert virtual_now() - start == pytest.approx(8, abs=0.01)
        assert world.calls == 5
        await world.dispatcher.afinish(ticket, b"late")
        assert world.left_nothing()

    in_virtual_time(main())


def test_what_an_old_flight_brings_meanwhile_is_served():
    async def main() -> None:
        world = virtual_world(flight_timeout=5)
        old = await world.dispatcher.abegin(NEAR)
        await asyncio.sleep(5)
        other = await asyncio.create_task(world.dispatcher.abegin(QUERY))
        waits = asyncio.create_task(world.aask(NEAR))
        await settled()
        assert (world.calls, world.waiting) == (0, 1)
        await world.dispatcher.afinish(old, b"old")
        await world.dispatcher.afinish(other, None)
        assert await waits == b"old"
        assert (world.calls, world.left_nothing()) == (0, True)

    in_virtual_time(main())


def test_waiting_behind_another_in_the_queue_is_waiting_in_the_queue():
    async def main() -> None:
        limiter = TokenLimiter(concurrency=1, clock=virtual_now)
        world, start = virtual_world(limiter=limiter), virtual_now()
        busy = await limiter.aacquire(COST)
        leader = asyncio.create_task(world.aask())
        await settled()
        with pytest.raises(LimitExceeded):
            await world.aask(NEAR, timeout=3)
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
        # The second of them follows the first.
        behind = [asyncio.create_task(world.aask(NEAR, timeout=0)) for _ in range(2)]
        assert await asyncio.gather(leader, *behind) == [b"answer"] * 3
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
        behind = asyncio.create_task(world.aask(NEAR, timeout=5))
        await asyncio.sleep(2)
        admitted.set()
        world.limiter.aacquire = usual
        await asyncio.gather(leader, return_exceptions=True)
        assert await behind == b"answer"
        assert world.limiter.timeouts == [9, pytest.approx(3, abs=0.01)]

    in_virtual_time(main())


# Nobody waits for himself


async def test_a_task_does_not_wait_behind_itself_nor_its_thread_for_the_loop():
    world = World()
    tickets = [await world.dispatcher.abegin(QUERY), await world.dispatcher.abegin(NEAR)]
    tickets.append(world.dispatcher.begin(worded(1)))
    for ticket in tickets:
        assert isinstance(ticket, Ticket)
        world.dispatcher.abort(ticket)
    assert world.left_nothing()


def test_a_thread_does_not_wait_behind_itself():
    dispatcher = World().dispatcher
    first, second = dispatcher.begin(QUERY), dispatcher.begin(NEAR)
    assert isinstance(second, Ticket)
    dispatcher.finish(second, b"second")
    dispatcher.finish(first, b"first")


@pytest.mark.parametrize("other", [NEAR, worded(1)], ids=["the same words", "third words"])
def test_who_holds_a_ticket_does_not_wait_for_one_who_waits_behind_it(other):
    async def main() -> None:
        world = virtual_world()
        ticket = await world.dispatcher.abegin(QUERY)
        behind = asyncio.create_task(world.aask(NEAR))
        await settled()
        assert world.waiting == 1
        second = await world.dispatcher.abegin(other)
        assert isinstance(second, Ticket)
        await world.dispatcher.afinish(second, b"second")
        await world.dispatcher.afinish(ticket, b"first")
        assert await behind in (b"first", b"second")
        assert (world.calls, world.left_nothing()) == (0, True)

    in_virtual_time(main())


def test_two_who_each_hold_what_the_other_asks_for_do_not_wait_for_each_other():
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        one, other = Query("one thing"), Query("another matter")
        both = asyncio.Barrier(2)

        async def holds_and_asks(mine: Query, theirs: Query) -> bytes:
            ticket = await world.dispatcher.abegin(mine)
            assert isinstance(ticket, Ticket)
            await both.wait()
            answer = await world.aask(theirs)
            await world.dispatcher.afinish(ticket, b"held")
            assert answer is not None
            return answer

        answers = await asyncio.gather(holds_and_asks(one, other), holds_and_asks(other, one))
        assert set(answers) <= {b"answer", b"held"}
        assert virtual_now() - start < 5
        assert world.left_nothing()

    in_virtual_time(main())


def test_two_threads_who_each_hold_what_the_other_asks_for_do_not_wait_for_each_other():
    world, both = World(flight_timeout=1e6), threading.Barrier(2)
    one, other = Query("one thing"), Query("another matter")

    answers: list[bytes | None] = []

    def holds_and_asks(mine: Query, theirs: Query) -> None:
        ticket = world.dispatcher.begin(mine)
        assert isinstance(ticket, Ticket)
        both.wait(60)
        answers.append(world.ask(theirs))
        world.dispatcher.finish(ticket, b"held")

    threads = [
        threading.Thread(target=holds_and_asks, args=pair, daemon=True) for pair in ((one, other), (other, one))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(answers) == 2
    assert set(answers) <= {b"answer", b"held"}
    assert world.left_nothing()


# A policy or a cache that fails


class Broken:
    neighbours = 4

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        if candidates:
            raise ValueError(text)
        return Decision(None, "empty")


def test_a_policy_that_fails_lets_everybody_go():
    async def main() -> None:
        world = virtual_world(policy=Broken())
        assert await asyncio.gather(world.aask(), world.aask(NEAR)) == [b"answer"] * 2
        assert (world.calls, world.dispatcher.stats().failures, world.left_nothing()) == (2, 1, True)

    in_virtual_time(main())


def test_with_raise_the_error_of_a_policy_reaches_the_caller():
    async def main() -> None:
        world = virtual_world(policy=Broken(), on_error="raise")
        done = await asyncio.gather(world.aask(), world.aask(NEAR), return_exceptions=True)
        assert [type(one) for one in done] == [bytes, ValueError]
        assert world.left_nothing()

    in_virtual_time(main())


def test_without_a_vector_nobody_waits():
    async def main() -> None:
        world = virtual_world(store=FlakyStore())
        world.store.error = StoreError("down")
        assert await asyncio.gather(world.aask(), world.aask(NEAR)) == [b"answer"] * 2
        assert world.dispatcher.flush(60)
        assert (world.calls, world.left_nothing()) == (2, True)

    in_virtual_time(main())
