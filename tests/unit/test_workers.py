"""Threads for event loops: as many as are needed, none that holds up anybody, none left when nobody needs them."""

from __future__ import annotations

import asyncio
import threading
import weakref

import pytest
from fakes import in_another_process

from dispatch_core.embed._workers import Workers


async def test_a_call_runs_in_a_thread_of_its_own_and_its_outcome_comes_back():
    workers = Workers(2, "work")
    assert (await workers.run(threading.current_thread)).name == "work_0"
    assert await workers.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 7, 0)


async def test_one_call_after_another_takes_one_thread_and_many_at_once_take_all():
    workers = Workers(3, "work")
    names = {(await workers.run(threading.current_thread)).name for _ in range(5)}
    assert len(names) == 1
    together = threading.Barrier(3, timeout=30)
    await asyncio.gather(*(workers.run(together.wait) for _ in range(9)))
    assert len(workers._threads) == 3


async def test_a_call_that_is_given_up_before_its_turn_is_not_made():
    workers, made, go = Workers(1, "work"), [], threading.Event()
    first = asyncio.create_task(workers.run(go.wait, 30))
    second = asyncio.create_task(workers.run(made.append, "second"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    go.set()
    assert await first
    await workers.run(made.append, "third")
    assert made == ["third"]


async def test_a_call_that_is_given_up_under_way_ends_without_harm():
    workers, begun, go = Workers(1, "work"), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go.wait(30)

    given_up = asyncio.create_task(workers.run(wait))
    await asyncio.to_thread(begun.wait, 30)
    given_up.cancel()
    await asyncio.wait([given_up])
    go.set()
    assert await workers.run(divmod, 7, 2) == (3, 1)


def test_a_loop_that_is_closed_meanwhile_takes_no_worker_away():
    workers, begun, go = Workers(1, "work"), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go.wait(30)

    async def leave() -> None:
        left = asyncio.create_task(workers.run(wait))
        await asyncio.to_thread(begun.wait, 30)
        left.cancel()

    asyncio.run(leave())
    go.set()
    assert asyncio.run(workers.run(divmod, 7, 2)) == (3, 1)


async def test_threads_end_with_their_workers_and_keep_nothing_of_what_they_did():
    class Thing:
        pass

    workers, thing = Workers(1, "work"), Thing()
    assert await workers.run(id, thing) == id(thing)
    await workers.run(int)
    gone = weakref.ref(thing)
    del thing
    assert gone() is None
    [thread] = workers._threads
    del workers
    thread.join(30)
    assert not thread.is_alive()


_LEAVING = """
import asyncio, threading, time
from dispatch_core.embed._workers import Workers

begun, workers = threading.Event(), Workers(1, "work")

def work():
    begun.set()
    time.sleep(0.2)
    print("done", flush=True)

async def leave():
    left = asyncio.create_task(workers.run(work))
    await asyncio.to_thread(begun.wait, 30)
    left.cancel()

asyncio.run(leave())
"""


def test_python_ends_only_after_the_call_under_way():
    assert in_another_process(_LEAVING) == "done"
