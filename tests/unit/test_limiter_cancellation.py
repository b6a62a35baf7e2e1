"""A cancellation at any await, a finaliser at any moment: nothing stays charged, no wake-up is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from awaits import await_by_await
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import Cost, TokenLimiter, Usage


def _virtual(**settings: Any) -> TokenLimiter:
    return TokenLimiter(**settings, clock=virtual_now)


def _books(limiter: TokenLimiter) -> tuple[int, int, float]:
    stats = limiter.stats()
    return stats.waiting, stats.open, stats.tokens_used


def test_a_cancelled_wait_lets_the_next_go():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        large = asyncio.create_task(limiter.aacquire(Cost(5_000)))
        small = asyncio.create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0.05)
        large.cancel()
        await small
        assert virtual_now() - start == pytest.approx(0.1, abs=1e-2)
        assert large.cancelled()
        assert limiter.stats().tokens_used == 210

    in_virtual_time(main())


def test_a_cancellation_after_the_admission_gives_everything_back():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(150)))
        await asyncio.sleep(0)
        held.cancel()
        assert limiter.stats().admitted == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert _books(limiter) == (0, 0, 0)

    in_virtual_time(main())


def test_any_order_of_cancellations_loses_no_wake_up():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, rpm=600)
        tasks = [
            asyncio.create_task(limiter.aacquire(Cost(50 + 37 * n % 400), key="abc"[n % 3], priority=n % 2))
            for n in range(60)
        ]
        for number in range(0, 60, 3):
            await asyncio.sleep(0.3)
            tasks[number].cancel()
        # A lost wake-up ends the virtual loop with an error.
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for reservation in done:
            if not isinstance(reservation, BaseException):
                reservation.settle(Usage(1, 1))
        assert _books(limiter)[:2] == (0, 0)

    in_virtual_time(main())


# Every await


async def _acquires(limiter: TokenLimiter) -> None:
    (await limiter.aacquire(Cost(150))).settle(Usage(0, 0))


async def _enters(limiter: TokenLimiter) -> None:
    async with limiter.reserve(150) as held:
        held.settle(Usage(0, 0))


async def _comes_again(limiter: TokenLimiter) -> None:
    async with limiter.reserve(1) as held:
        held.throttled(429, {"retry-after": "3"})
        await held.aagain()
        held.settle(Usage(0, 0))


@pytest.mark.parametrize("behind", [0, 2], ids=["first in line", "behind others"])
@pytest.mark.parametrize("call", [_acquires, _enters, _comes_again])
def test_a_cancellation_at_any_await_leaves_the_limiter_as_if_nobody_had_come(
    call: Callable[[TokenLimiter], Coroutine[Any, Any, None]], behind: int
) -> None:
    async def cancelled_at(stop: int) -> bool:
        limiter = _virtual(tpm=6_000)
        (await limiter.aacquire(Cost(199))).settle()
        others = [asyncio.create_task(limiter.aacquire(Cost(100))) for _ in range(behind)]
        await asyncio.sleep(0)
        cancelled, _ = await await_by_await(call(limiter), stop)
        after = asyncio.create_task(limiter.aacquire(Cost(100)))
        for task in (*others, after):
            (await task).settle()
        assert _books(limiter) == (0, 0, 199 + 100 * (behind + 1))
        return cancelled

    stop = 0
    while in_virtual_time(cancelled_at(stop)):
        stop += 1
    assert stop >= 1


def test_a_cancellation_while_others_give_back_leaves_no_trace():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        for moment in range(40):
            held = await limiter.aacquire(Cost(6_000))
            waiting = [asyncio.create_task(limiter.aacquire(Cost(100))) for _ in range(4)]
            for _ in range(moment % 5):
                await asyncio.sleep(0)
            waiting[moment % 4].cancel()
            held.cancel()
            waiting[(moment + 1) % 4].cancel()
            for reservation in await asyncio.gather(*waiting, return_exceptions=True):
                if not isinstance(reservation, BaseException):
                    reservation.cancel()
            assert _books(limiter)[:2] == (0, 0)
            await asyncio.sleep(100)
            assert _books(limiter) == (0, 0, 0)

    in_virtual_time(main())


def test_a_timeout_around_a_wait_is_a_cancellation():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        await limiter.aacquire(Cost(200))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(limiter.aacquire(Cost(200)), 0.5)
        assert _books(limiter) == (0, 1, 200)

    in_virtual_time(main())


def test_a_wait_that_is_closed_unfinished_leaves_the_line():
    limiter = TokenLimiter(tpm=6_000)
    limiter.acquire(Cost(6_000))
    waiting = limiter._desk.queue_up(limiter.reserve(10))
    next(waiting)
    assert limiter.stats().waiting == 1
    del waiting
    gc.collect()
    assert limiter.stats().waiting == 0


# Finalisers


class _EndsWhenCollected:
    """Part of a cycle, so that the garbage collector, whenever it runs, ends the call."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self.end = end
        self.me = self

    def __del__(self) -> None:
        self.end()


@pytest.mark.parametrize("how", ["settle", "cancel", "throttled"])
def test_a_finaliser_may_end_a_call_while_the_lock_is_held(how):
    collecting = False

    def clock() -> float:
        if collecting:
            gc.collect()
        return 1_000.0

    limiter = TokenLimiter(tpm=6_000_000, clock=clock)
    held = limiter.acquire(Cost(100))
    ends = {
        "settle": lambda: held.settle(Usage(30, 0)),
        "cancel": held.cancel,
        "throttled": lambda: held.throttled(429),
    }
    _EndsWhenCollected(ends[how])
    collecting = True
    limiter.eta(1)
    assert limiter.stats().open == 0
    assert limiter.stats().tokens_used == {"settle": 30, "cancel": 0, "throttled": 0}[how]


def test_finalisers_at_every_moment_lose_nothing():
    """The collector runs as often as it can, in threads that take and give back."""
    limiter = TokenLimiter(tpm=600_000, window=0.05, burst=0.02)
    limit = limiter.stats().gauges["tokens"].limit
    before = gc.get_threshold()

    def work() -> None:
        for number in range(60):
            held = limiter.acquire(Cost(int(limit / 20)))
            _EndsWhenCollected((held.cancel, held.settle, lambda held=held: held.settle(Usage(1, 0)))[number % 3])

    gc.set_threshold(7, 2, 2)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting) == (240, 0, 0)
