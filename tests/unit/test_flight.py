"""Single flight: of all who ask the same question at one moment, one asks the model."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import FlakyStore
from flights import NEAR, QUERY, USAGE, SlowStore, World, settled, tasks_of, until, virtual_world
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    Query,
    StoreError,
    Usage,
)
from dispatch_core.flight import this_task, waiting_for_others

# One call


def test_of_two_hundred_tasks_one_asks():
    async def main() -> World:
        world, start = virtual_world(), virtual_now()
        assert await asyncio.gather(*tasks_of(world, 200)) == [b"answer"] * 200
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
    world.call = lambda: until(lambda: world.waiting == 199)
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
        until(lambda: world.waiting == 200)

    world.call = answer
    world.acall = lambda: asyncio.to_thread(answer)

    async def many(number: int) -> list[bytes | None]:
        return await asyncio.gather(*tasks_of(world, number))

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
    ],
)
def test_other_questions_are_other_flights(other):
    async def main() -> None:
        world = virtual_world()
        tasks = [*tasks_of(world, 5), *tasks_of(world, 5, other)]
        await asyncio.sleep(0.5)
        assert (world.calls, len(world.flights)) == (2, 2)
        assert await asyncio.gather(*tasks) == [b"answer"] * 10
        assert world.left_nothing()

    in_virtual_time(main())


def test_the_same_text_in_another_spelling_is_the_same_question():
    async def main() -> None:
        world = virtual_world()
        await asyncio.gather(*tasks_of(world, 2), world.aask(Query(f" {QUERY.text}\r\n")))
        assert world.calls == 1

    in_virtual_time(main())


def test_a_shared_answer_says_what_it_is():
    async def main() -> None:
        world = virtual_world(store=FlakyStore())
        dispatcher = world.dispatcher
        leader = await dispatcher.abegin(QUERY)
        follower = asyncio.create_task(dispatcher.abegin(QUERY))
        await settled()
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
        world = virtual_world(store=SlowStore(), write_behind=False)
        await world.aask(NEAR)
        assert await asyncio.gather(*tasks_of(world, 50)) == [b"answer"] * 50
        assert (world.calls, len(world.embedder.texts)) == (1, 2)
        stats = world.dispatcher.stats()
        assert (stats.semantic_hits, stats.shared, stats.misses) == (50, 0, 1)

    in_virtual_time(main())


def test_nobody_waits_for_the_write():
    store, gate = FlakyStore(), threading.Event()
    put = store.put
    store.put = lambda entry, vector: gate.wait(60) and put(entry, vector)

    async def main() -> None:
        world = virtual_world(store=store)
        assert await asyncio.gather(*tasks_of(world, 5)) == [b"answer"] * 5
        assert (await world.aask(), world.calls, len(store)) == (b"answer", 1, 0)
        gate.set()
        assert world.dispatcher.flush(60)
        assert (len(store), world.left_nothing()) == (1, True)

    in_virtual_time(main())


def test_without_writing_behind_they_do_not_wait_for_it_either():
    async def main() -> None:
        world = virtual_world(store=FlakyStore(), write_behind=False)
        gate = asyncio.Event()
        put = world.store.put

        async def aput(entry: Any, vector: Any) -> None:
            await gate.wait()
            put(entry, vector)

        world.store.aput = aput
        tasks = tasks_of(world, 5)
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
        world = virtual_world(store=FlakyStore())
        world.store.error = StoreError("down")
        for _ in range(4):
            assert await asyncio.gather(*tasks_of(world, 20)) == [b"answer"] * 20
            assert world.dispatcher.flush(60)
        assert world.calls == 4
        assert world.left_nothing()

    in_virtual_time(main())


def test_with_raise_everybody_hears_of_a_broken_cache():
    async def main() -> None:
        world = virtual_world(store=FlakyStore(), on_error="raise")
        world.store.error = StoreError("down")
        done = await asyncio.gather(*tasks_of(world, 20), return_exceptions=True)
        assert {type(error) for error in done} == {StoreError}
        assert (world.calls, world.left_nothing()) == (0, True)

    in_virtual_time(main())


async def test_a_task_that_is_waited_for_asks_on_behalf_of_who_waits():
    alone = await this_task()
    with waiting_for_others():
        assert await asyncio.create_task(this_task()) == alone
    assert await asyncio.create_task(this_task()) != alone
