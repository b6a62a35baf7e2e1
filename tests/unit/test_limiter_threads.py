"""One limiter for threads, tasks and event loops at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from dispatch_core import Cost, TokenLimiter, Usage


def _window_is_kept(admitted: list[tuple[float, int]], limit: float, window: float) -> bool:
    admitted = sorted(admitted)
    return all(sum(n for at, n in admitted if end - window < at <= end) <= limit + 1e-6 for end, _ in admitted)


def test_threads_tasks_and_two_loops_share_one_quota():
    limiter = TokenLimiter(rpm=60_000, tpm=6_000_000, window=0.05, burst=0.01)
    settled = []

    def blocking(number: int) -> None:
        with limiter.reserve(400, timeout=30) as reservation:
            reservation.settle(Usage(300, 0))
        settled.append(number)

    async def awaited(number: int) -> None:
        async with limiter.reserve(400, timeout=30) as reservation:
            reservation.settle(Usage(300, 0))
        settled.append(number)

    async def many(first: int) -> None:
        await asyncio.gather(*map(awaited, range(first, first + 50)))

    with ThreadPoolExecutor(12) as threads:
        jobs = [threads.submit(blocking, number) for number in range(100)]
        jobs += [threads.submit(asyncio.run, many(first)) for first in (100, 150)]
        for job in jobs:
            job.result()
    assert sorted(settled) == list(range(200))
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.rejected) == (200, 0, 0, 0)


def test_two_loops_and_eight_threads_together_never_exceed_the_limit():
    """What counts is when the limiter charged a call, by the limiter's own clock."""
    window = 0.1
    limiter = TokenLimiter(tpm=60_000, rpm=30_000, concurrency=6, window=window, burst=0.03)
    admitted: list[tuple[float, int]] = []
    under_way, most = [], []

    def note(held) -> None:
        admitted.append((held.charge.at, held.cost.tokens))
        under_way.append(held)
        most.append(len(under_way))
        under_way.remove(held)
        held.settle(None)

    def blocking(number: int) -> None:
        for turn in range(8):
            note(limiter.acquire(Cost(1 + (number + turn) % 9), key=str(number % 3), priority=turn % 2))

    async def awaited(number: int) -> None:
        for turn in range(4):
            note(await limiter.aacquire(Cost(1 + (number + turn) % 9), key=str(number % 3)))

    async def many() -> None:
        await asyncio.gather(*map(awaited, range(8)))

    with ThreadPoolExecutor(10) as threads:
        jobs = [threads.submit(blocking, number) for number in range(8)]
        jobs += [threads.submit(asyncio.run, many()) for _ in range(2)]
        for job in jobs:
            job.result()
    assert len(admitted) == 8 * 8 + 2 * 8 * 4
    assert max(most) <= 6
    assert _window_is_kept(admitted, 60_000 * window / 60, window)
    assert _window_is_kept([(at, 1) for at, _ in admitted], 30_000 * window / 60, window)
    stats = limiter.stats()
    assert (stats.open, stats.waiting) == (0, 0)


def test_slots_are_never_exceeded_by_threads():
    limiter = TokenLimiter(concurrency=3)
    now, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal now, most
        for _ in range(50):
            with limiter.reserve(1):
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert limiter.stats().gauges["concurrency"].used == 0


def test_a_task_is_woken_by_a_thread_that_gives_back():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))

    async def main() -> None:
        waiting = asyncio.create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0)
        await asyncio.to_thread(held.cancel)
        (await waiting).settle()

    asyncio.run(main())
    assert limiter.stats().open == 0


def test_a_thread_is_woken_by_a_task_that_gives_back():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))
    waiting = threading.Thread(target=lambda: limiter.acquire(Cost(10)).settle())
    waiting.start()

    async def main() -> None:
        held.cancel()

    asyncio.run(main())
    waiting.join()
    assert limiter.stats().open == 0


def test_a_task_of_one_loop_is_woken_by_a_task_of_another():
    limiter = TokenLimiter(concurrency=1)
    held = limiter.acquire(Cost(1))
    waits = threading.Event()

    async def wait() -> None:
        waiting = asyncio.create_task(limiter.aacquire(Cost(1)))
        while not limiter.stats().waiting:
            await asyncio.sleep(0)
        waits.set()
        (await waiting).settle()

    async def give_back() -> None:
        held.settle()

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    assert waits.wait(timeout=60)
    asyncio.run(give_back())
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert limiter.stats().open == 0


def test_a_loop_that_ended_while_a_call_waited_does_not_block_the_others():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))

    async def main() -> None:
        asyncio.get_running_loop().create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert limiter.stats().waiting == 0
    held.cancel()
    limiter.acquire(Cost(10), timeout=0)
