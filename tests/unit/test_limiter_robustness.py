"""The limiter when those who wait cannot run, when a process forks, when a guess is wrong."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings

import pytest
from fakes import Clock

from dispatch_core import Cost, LimitExceeded, RequestTooLarge, TokenLimiter, Usage


@pytest.mark.parametrize("closed", [False, True], ids=["stopped", "closed"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning")
def test_a_head_whose_loop_does_not_run_holds_nobody_up(closed: bool) -> None:
    limiter = TokenLimiter(rpm=600, burst=0.1)
    limiter.acquire(Cost(1)).settle()
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(limiter.aacquire(Cost(1)))
    while not limiter.stats().waiting:
        loop.run_until_complete(asyncio.sleep(0))
    if closed:
        loop.close()
    thread = threading.Thread(target=lambda: limiter.acquire(Cost(1)), daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    if not closed:
        abandoned.cancel()
        loop.run_until_complete(asyncio.gather(abandoned, return_exceptions=True))
        loop.close()
    else:
        abandoned._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning")
def test_who_waits_in_a_closed_loop_takes_nothing_with_him() -> None:
    limiter = TokenLimiter(tpm=6_000, concurrency=1)
    held = limiter.acquire(Cost(100))
    loop = asyncio.new_event_loop()
    abandoned = [loop.create_task(limiter.aacquire(Cost(100))) for _ in range(5)]
    while limiter.stats().waiting < 5:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    held.cancel()
    stats = limiter.stats()
    assert (stats.open, stats.waiting, stats.tokens_used) == (0, 0, 0)
    assert limiter.try_reserve(100) is not None
    for task in abandoned:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_one_long_answer_locks_nobody_out() -> None:
    """What answers usually have is a guess; only what the caller asks for can be too large."""
    clock = Clock()
    limiter = TokenLimiter(tpm=3000, clock=clock)
    limiter.acquire(limiter.estimate("hi")).settle(Usage(5, 3500))
    clock.now += 200
    limiter.acquire(limiter.estimate("hi"), timeout=0)
    with pytest.raises(RequestTooLarge):
        limiter.acquire(limiter.estimate("hi", max_tokens=3500), timeout=0)
    with pytest.raises(RequestTooLarge):
        limiter.acquire(limiter.estimate("long " * 4000), timeout=0)


def test_calls_that_nobody_settles_cost_their_window_and_no_more() -> None:
    clock = Clock()
    limiter = TokenLimiter(tpm=6_000, clock=clock)
    admitted = []
    while clock.now < 3_600:
        held = limiter.try_reserve("x" * 400, max_tokens=0)
        if held is None:
            clock.now += max(limiter.eta("x" * 400, max_tokens=0), 0.01)
        else:
            admitted.append(clock.now)
    first_half = sum(1 for at in admitted if at < 1_800)
    assert len(admitted) - first_half >= 0.9 * first_half


def test_a_call_larger_than_the_burst_is_not_refused_for_a_wait_it_will_not_have() -> None:
    clock = Clock()
    limiter = TokenLimiter(tpm=60_000, clock=clock)
    limiter.acquire(Cost(2000))
    waiting = limiter._desk.queue_up(limiter.reserve(10))
    next(waiting)
    assert limiter.eta(Cost(50_000)) == pytest.approx(2.0, abs=0.1)
    waiting.close()


def test_the_wait_in_a_refusal_counts_only_those_ahead() -> None:
    clock = Clock()
    limiter = TokenLimiter(rpm=60, burst=1, clock=clock)
    limiter.acquire(Cost(1))
    flows = [limiter._desk.queue_up(limiter.reserve(1, timeout=None if number else 2.0)) for number in range(20)]
    for flow in flows:
        next(flow)
    clock.now = 0.5
    with pytest.raises(LimitExceeded) as refused:
        limiter.acquire(Cost(1), timeout=0.1)
    assert refused.value.retry_after == pytest.approx(20.5, abs=0.1)
    for flow in flows:
        flow.close()


def _in_a_child(limiter: TokenLimiter) -> int:
    """The exit code of a forked process that asks for a place: 7 if it got it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads: that is the point
        child = os.fork()
    if child == 0:
        code = 1
        try:
            limiter.acquire(Cost(1), timeout=30)
            code = 7
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_has_an_empty_queue() -> None:
    limiter = TokenLimiter(rpm=600, burst=0.1)
    limiter.acquire(Cost(1)).settle()
    waiting = limiter._desk.queue_up(limiter.reserve(1))
    next(waiting)
    assert _in_a_child(limiter) == 7
    waiting.close()


def test_a_child_forked_while_a_thread_holds_the_lock_is_not_locked_out() -> None:
    limiter = TokenLimiter(rpm=6_000)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        limiter._desk.serial.alone(lambda: inside.set() or leave.wait(timeout=60))

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(timeout=60)
    try:
        assert _in_a_child(limiter) == 7
    finally:
        leave.set()
        thread.join()


def test_a_wait_without_end_can_be_asked_for() -> None:
    limiter = TokenLimiter(rpm=6000, burst=0.01, max_wait=1e10)
    limiter.acquire(Cost(1))
    limiter.acquire(Cost(1)).settle()


def test_a_call_that_was_open_at_a_fork_is_not_ended_twice() -> None:
    limiter = TokenLimiter(concurrency=1)
    with limiter.reserve(1) as held:
        limiter._desk.start_anew()
        held.settle()
        assert (limiter.stats().open, limiter.stats().gauges["concurrency"].used) == (0, 0)
    first, second = limiter.try_reserve(1), limiter.try_reserve(1)
    assert first is not None
    assert second is None
