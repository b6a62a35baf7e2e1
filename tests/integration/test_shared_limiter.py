"""Token limiters that share one quota, on real servers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from awaits import await_by_await
from servers import free_port
from sharing import PATIENCE, desk_of, flushed, free_of

from dispatch_core import Cost, LimitExceeded, RequestTooLarge, Usage
from dispatch_core._flow import Flow
from dispatch_core.limit import shared

# One quota


def test_what_one_takes_the_other_lacks(opened):
    one, other = opened(), opened()
    one.acquire(Cost(700))
    assert free_of(other) == 300


def test_both_hammering_stay_within_the_limit(opened):
    limiters = [opened(tpm=10_000) for _ in range(2)]

    def hammer(number: int) -> int:
        return sum(limiters[number % 2].try_reserve(37) is not None for _ in range(60))

    with ThreadPoolExecutor(8) as threads:
        admitted = sum(threads.map(hammer, range(8)))
    assert admitted == 10_000 // 37


def test_what_one_settles_is_room_for_the_other(opened):
    one, other = opened(), opened()
    with one.reserve(900) as held:
        assert other.try_reserve(500) is None
        held.settle(Usage(300, 100))
    flushed(one)
    assert free_of(other) == 600


def test_settling_wakes_nobody_elsewhere_but_they_ask_again(opened):
    one, other = opened(), opened()
    held = one.acquire(Cost(1_000))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other.acquire, Cost(1_000))
        while not other.stats().waiting:
            time.sleep(0)
        held.cancel()
        assert waiting.result(PATIENCE).charge.open


async def test_blocking_and_awaited_calls_share_it(opened):
    one, other = opened(), opened()
    with one.reserve(100) as first:
        async with other.reserve(200) as second:
            assert free_of(one) == 700
            second.settle(Usage(50, 0))
        first.settle(Usage(50, 0))
    flushed(one, other)
    assert free_of(other) == 900
    await other.aclose()


def test_threads_and_two_loops_on_one_limiter(opened):
    limiter = opened(tpm=1_000_000, concurrency=8)
    done: list[int] = []

    def blocking(number: int) -> None:
        with limiter.reserve(100) as held:
            held.settle(Usage(60, 0))
        done.append(number)

    async def awaited(number: int) -> None:
        async with limiter.reserve(100) as held:
            held.settle(Usage(60, 0))
        done.append(number)

    async def many(first: int) -> None:
        await asyncio.gather(*map(awaited, range(first, first + 20)))
        await limiter.aclose()

    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(blocking, number) for number in range(40)]
        jobs += [threads.submit(asyncio.run, many(first)) for first in (40, 60)]
        for job in jobs:
            job.result(PATIENCE)
    assert sorted(done) == list(range(80))
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.tokens_used) == (80, 0, 0, 80 * 60)


def test_limits_of_another_shape_do_not_collide_under_one_name(opened):
    before, after = opened(tpm=1_000), opened(tpm=1_000, rpm=100)
    before.acquire(Cost(1_000))
    after.acquire(Cost(1_000))
    assert before.try_reserve(1) is None
    assert after.try_reserve(1) is None


def test_other_names_are_other_quotas(opened):
    opened().acquire(Cost(1_000))
    assert opened(name="another").try_reserve(1_000) is not None


# Now or never, and in which order


def test_now_or_never(opened):
    one, other = opened(), opened()
    one.acquire(Cost(900))
    assert other.try_reserve(101) is None
    with pytest.raises(LimitExceeded) as refused:
        other.acquire(Cost(101), timeout=0)
    assert 1 < refused.value.retry_after < 61
    assert other.stats().rejected == 2
    assert other.try_reserve(100) is not None


def test_a_turn_that_comes_too_late_is_refused_at_once(opened):
    one, other = opened(), opened()
    one.acquire(Cost(1_000))
    with pytest.raises(LimitExceeded, match="too late") as refused:
        other.acquire(Cost(10), timeout=PATIENCE)
    assert refused.value.retry_after > PATIENCE


async def test_who_has_no_time_to_wait_is_not_refused_while_there_is_room(opened):
    """They ask one after the other; that must not look like a queue."""
    limiter = opened()
    held = await asyncio.gather(*(limiter.aacquire(Cost(20), timeout=0) for _ in range(50)))
    assert len(held) == 50
    with pytest.raises(LimitExceeded):
        await limiter.aacquire(Cost(20), timeout=0)
    await limiter.aclose()


async def test_a_full_queue_refuses(opened):
    limiter = opened(max_queue=2)
    await limiter.aacquire(Cost(1_000))
    waiting = [asyncio.create_task(limiter.aacquire(Cost(10))) for _ in range(2)]
    while desk_of(limiter)._flowing:
        await asyncio.sleep(0.01)
    with pytest.raises(LimitExceeded, match="full"):
        await limiter.aacquire(Cost(10))
    await _cancelled(*waiting)
    await limiter.aclose()


async def test_the_lower_priority_goes_first_and_keys_take_turns(opened):
    limiter = opened(concurrency=1)
    order: list[str] = []

    async def call(who: str, **how: Any) -> None:
        async with limiter.reserve(1, **how):
            order.append(who)

    async with limiter.reserve(1):
        tasks = [asyncio.create_task(call(f"late {key}", key=key)) for key in ("a", "a", "a", "b")]
        tasks.append(asyncio.create_task(call("soon", priority=-1)))
        # Who has asked Redis already would be first, whoever came meanwhile.
        while limiter.stats().waiting < 5 or desk_of(limiter)._flowing:
            await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert order == ["soon", "late a", "late b", "late a", "late a"]
    await limiter.aclose()


def test_a_refusal_seen_by_one_closes_the_gate_for_the_other(opened):
    one, other = opened(), opened()
    with one.reserve(10) as held:
        assert held.throttled(429, {"retry-after": "40"})
    # Redis may hear of it a moment later, this process must not.
    with pytest.raises(LimitExceeded) as refused:
        one.acquire(Cost(1), timeout=5)
    assert 30 < refused.value.retry_after < 45
    flushed(one)
    with pytest.raises(LimitExceeded) as refused:
        other.acquire(Cost(1), timeout=5)
    assert 30 < refused.value.retry_after < 45


def test_who_was_granted_ahead_does_not_go_when_a_call_is_refused_meanwhile(opened, monkeypatch):
    limiter = opened(rpm=600, tpm=None, burst=0.1)
    desk, told = desk_of(limiter), {"retry-after-ms": "400"}
    first = limiter.acquire(Cost(1))
    pauses = []

    def refused_meanwhile(seconds: float) -> Flow[None]:
        pauses.append(seconds)
        if len(pauses) == 1:
            assert first.throttled(429, told)
        yield from ()

    monkeypatch.setattr(shared, "pause", refused_meanwhile)
    held = limiter.acquire(Cost(1), timeout=PATIENCE)
    assert pauses
    assert desk._gate(desk._clock()) == 0
    assert held.charge.open
    assert list(held.charge.amounts) == [1.0]
    held.settle()
    stats = limiter.stats()
    assert (stats.admitted, stats.throttled, len(desk.line), desk.open) == (2, 1, 0, 0)
    flushed(limiter)
    # Its first grant was given back, and what was refused counts nothing.
    assert limiter.acquire(Cost(1), timeout=PATIENCE).charge.marks[0][0] == 2


def test_whoever_has_no_time_to_be_called_back_is_told_at_once(opened, monkeypatch):
    limiter = opened(rpm=600, tpm=None, burst=0.1)
    first = limiter.acquire(Cost(1))

    def refused_meanwhile(seconds: float) -> Flow[None]:
        assert first.throttled(429, {"retry-after": "40"})
        yield from ()

    monkeypatch.setattr(shared, "pause", refused_meanwhile)
    with pytest.raises(LimitExceeded, match="too late") as refused:
        limiter.acquire(Cost(1), timeout=PATIENCE)
    assert refused.value.retry_after > PATIENCE
    stats = limiter.stats()
    assert (stats.admitted, stats.rejected, stats.waiting, stats.open) == (1, 1, 0, 0)


def test_a_call_larger_than_the_limit_is_refused_before_anybody_is_asked(open_one):
    limiter = open_one(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(RequestTooLarge):
        limiter.acquire(Cost(1_001))


# Cancellation


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _quiet() -> None:
    """Let end what a cancelled call left behind."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@pytest.mark.parametrize("state", ["room", "a wait", "a restart"])
async def test_a_cancellation_at_any_await_leaves_nothing_charged(opened, redis_like_url, state):
    stop, cancelled = 0, True
    while cancelled:
        limiter, other = (opened(name=f"{state} {stop}", concurrency=9, tpm=60_000) for _ in range(2))
        limiter.acquire(Cost(500)).settle(Usage(400, 0))
        held = other.acquire(Cost(59_600)) if state == "a wait" else None
        flushed(limiter)
        if state == "a restart":
            with redis.Redis.from_url(redis_like_url) as client:
                client.flushall()
        if held is not None:
            asyncio.get_running_loop().call_later(0.05, held.cancel)
        cancelled, reached = await await_by_await(limiter.aacquire(Cost(500)), stop)
        if not cancelled:
            reached.cancel()
        await _quiet()
        flushed(limiter, other)
        if held is not None:
            held.cancel()
            flushed(other)
        assert (limiter.stats().waiting, limiter.stats().open) == (0, 0)
        await limiter.aacquire(Cost(1))
        last = await limiter.aacquire(Cost(1))
        # The slots of these two, and the tokens of all three that were sent.
        assert [used for used, _ in last.charge.marks] == [402, 2], f"cancelled at await {stop}"
        await limiter.aclose()
        other.close()
        stop += 1
    assert stop >= 2
