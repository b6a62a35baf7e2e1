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


def test_a_call_larger_than_the_burst_is_not_refused_for_a_wait_it_will_not_have() -> None:
    clock = Clock()
    limiter = TokenLimiter(tpm=60_000, clock=clock)
    limiter.acquire(Cost(2000))
    waiting = limiter.acquire_flow(Cost(10), None)
    next(waiting)
    assert limiter.eta(Cost(50_000)) == pytest.approx(2.0, abs=0.02)
    waiting.close()


def test_the_wait_in_a_refusal_counts_only_those_ahead() -> None:
    clock = Clock()
    limiter = TokenLimiter(rpm=60, burst=1, clock=clock)
    limiter.acquire(Cost(1))
    flows = [limiter.acquire_flow(Cost(1), 2.0 if not number else None) for number in range(20)]
    first = flows[0]
    next(first)
    for flow in flows[1:]:
        next(flow)
    clock.now = 0.5
    with pytest.raises(LimitExceeded) as refused:
        limiter.acquire(Cost(1), timeout=0.1)
    assert refused.value.retry_after == pytest.approx(20.5)
    for flow in flows:
        flow.close()


def test_a_forked_child_has_an_empty_queue() -> None:
    limiter = TokenLimiter(rpm=600, burst=0.1)
    limiter.acquire(Cost(1)).settle()
    waiting = limiter.acquire_flow(Cost(1), None)
    next(waiting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads: that is the point
        child = os.fork()
    if child == 0:
        limiter.acquire(Cost(1))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    waiting.close()


def test_a_wait_without_end_can_be_asked_for() -> None:
    limiter = TokenLimiter(rpm=6000, burst=0.01, max_wait=1e10)
    limiter.acquire(Cost(1))
    limiter.acquire(Cost(1)).settle()
