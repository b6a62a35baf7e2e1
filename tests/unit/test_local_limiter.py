"""The limiter of one process, as its callers see it: who is admitted, when, and who is refused."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from fakes import FORMS, Clock, Either
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import Cost, Feedback, LimitExceeded, RequestTooLarge, TokenLimiter, Usage
from dispatch_core.limit.count import TokenEstimator


def _virtual(**settings: Any) -> TokenLimiter:
    return TokenLimiter(**settings, clock=virtual_now)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def limiter(clock: Clock) -> TokenLimiter:
    """100 tokens a second, 200 at once; nobody waits on this clock."""
    return TokenLimiter(tpm=6_000, clock=clock)


class _Acquiring:
    """`acquire` and `aacquire` as a pair that `Either` can choose from."""

    def __init__(self, limiter: TokenLimiter) -> None:
        self.acquire = limiter.acquire
        self.aacquire = limiter.aacquire


# Admission


async def test_a_call_that_fits_is_admitted_at_once(limiter, form):
    reservation = await Either(_Acquiring(limiter), form).acquire(Cost(100, 50), timeout=0)
    assert reservation.cost == Cost(100, 50)
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.tokens_used) == (1, 1, 0, 150)


async def test_now_or_never_refuses_what_does_not_fit(limiter, clock, form):
    acquiring = Either(_Acquiring(limiter), form)
    await acquiring.acquire(Cost(200), timeout=0)
    with pytest.raises(LimitExceeded) as refused:
        await acquiring.acquire(Cost(100), timeout=0)
    assert refused.value.retry_after == pytest.approx(1.0)
    assert (limiter.stats().rejected, limiter.stats().waiting) == (1, 0)
    clock.now += refused.value.retry_after
    await acquiring.acquire(Cost(100), timeout=0)


async def test_a_turn_that_would_come_too_late_is_refused_at_once(limiter, form):
    acquiring = Either(_Acquiring(limiter), form)
    await acquiring.acquire(Cost(200))
    with pytest.raises(LimitExceeded, match="too late"):
        await acquiring.acquire(Cost(100), timeout=0.9)


@pytest.mark.parametrize("tpm", [60, 100])
async def test_a_call_that_never_fits_is_refused_with_both_numbers(tpm, form):
    limiter = TokenLimiter(tpm=tpm)
    with pytest.raises(RequestTooLarge, match=rf"\b150\b.*\b{tpm}\b") as refused:
        await Either(_Acquiring(limiter), form).acquire(Cost(100, 50))
    assert (refused.value.requested, refused.value.limit) == (150, tpm)
    assert limiter.stats().waiting == 0


def test_the_largest_call_that_fits_never_hangs():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, rpm=60)
        for _ in range(3):
            (await limiter.aacquire(Cost(6_000))).settle()

    in_virtual_time(main())


def test_the_largest_text_that_fits_never_hangs_however_wrong_the_estimates_were():
    async def main() -> None:
        estimator = TokenEstimator()
        for number in range(50):
            cost = estimator.estimate("x" * 4_000, max_tokens=0, model="")
            estimator.learn(cost, Usage((200, 4_900)[number % 2], 0))
        limiter = _virtual(tpm=6_000, estimator=estimator)
        cost = limiter.estimate("x" * 7_000, max_tokens=0)
        assert 1_000 < cost.tokens <= 6_000
        for _ in range(3):
            assert limiter.eta(cost) <= 130
            await limiter.aacquire(cost, timeout=300)

    in_virtual_time(main())


def test_max_wait_bounds_every_wait(clock):
    limiter = TokenLimiter(tpm=6_000, max_wait=0.5, clock=clock)
    limiter.acquire(Cost(200))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(100))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(100), timeout=60)


def test_a_full_queue_refuses_the_next():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, max_queue=2)
        await limiter.aacquire(Cost(200))
        waiting = [asyncio.create_task(limiter.aacquire(Cost(100))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="queue is full") as refused:
            await limiter.aacquire(Cost(100))
        assert refused.value.retry_after > 1
        await asyncio.gather(*waiting)
        await limiter.aacquire(Cost(100))

    in_virtual_time(main())


def test_a_queue_of_none_still_admits_what_fits(clock):
    limiter = TokenLimiter(tpm=6_000, max_queue=0, clock=clock)
    limiter.acquire(Cost(200))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(1))
    clock.now += 1
    limiter.acquire(Cost(1))


def test_trying_never_waits_and_never_raises_for_lack_of_room(limiter, clock):
    held = limiter.try_reserve(200)
    assert held is not None
    assert limiter.try_reserve(100) is None
    held.cancel()
    assert limiter.try_reserve("x" * 40, max_tokens=100) is not None
    with pytest.raises(RequestTooLarge):
        limiter.try_reserve(6_001)


# Waiting


def test_calls_are_admitted_in_their_order_and_at_the_rate():
    async def main() -> None:
        limiter, order, start = _virtual(tpm=6_000), [], virtual_now()

        async def ask(number: int) -> float:
            await limiter.aacquire(Cost(100))
            order.append(number)
            return virtual_now() - start

        times = await asyncio.gather(*map(ask, range(20)))
        assert order == list(range(20))
        # Two at once from the burst, then one a second.
        assert times == pytest.approx([0, 0, *range(1, 19)], abs=0.1)

    in_virtual_time(main())


def test_a_small_call_waits_behind_a_large_one():
    async def main() -> None:
        limiter, order = _virtual(tpm=6_000), []

        async def ask(tokens: int) -> None:
            await limiter.aacquire(Cost(tokens))
            order.append(tokens)

        await asyncio.gather(*map(ask, (200, 150, 1, 50)))
        assert order == [200, 150, 1, 50]

    in_virtual_time(main())


async def _order_of(limiter: TokenLimiter, calls: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Ask for all of them while nothing is free; the names in the order of their admission."""
    await limiter.aacquire(Cost(200))
    order: list[str] = []

    async def ask(name: str, settings: dict[str, Any]) -> None:
        await limiter.aacquire(Cost(100), **settings)
        order.append(name)

    await asyncio.gather(*(ask(name, settings) for name, settings in calls))
    return order


def test_the_lower_priority_goes_first():
    async def main() -> None:
        calls = [("batch", {"priority": 2}), ("first", {"priority": 1}), ("second", {"priority": 1}), ("urgent", {})]
        assert await _order_of(_virtual(tpm=6_000), calls) == ["urgent", "first", "second", "batch"]

    in_virtual_time(main())


def test_with_little_aging_priorities_hardly_count():
    async def main() -> None:
        calls = [("batch", {"priority": 9}), ("urgent", {"priority": 0})]
        assert await _order_of(_virtual(tpm=6_000, aging=1e-12), calls) == ["batch", "urgent"]

    in_virtual_time(main())


def test_a_tenant_who_asks_for_much_leaves_the_others_their_share():
    async def main() -> None:
        calls = [("a", {"key": "a"})] * 12 + [("b", {"key": "b"})] * 4 + [("c", {"key": "c"})] * 2
        order = await _order_of(_virtual(tpm=6_000, weights={"b": 2.0}), calls)
        assert order[:8].count("b") == 4
        assert order[:8].count("c") == 2
        assert order[8:] == ["a"] * 10

    in_virtual_time(main())


def test_who_is_more_urgent_or_of_a_quiet_tenant_is_told_a_shorter_wait():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        await limiter.aacquire(Cost(200))
        waiting = [asyncio.create_task(limiter.aacquire(Cost(100), key="a", priority=1)) for _ in range(20)]
        await asyncio.sleep(0)
        behind = limiter.eta(100, key="a", priority=1)
        beside = limiter.eta(100, key="b", priority=1)
        before = limiter.eta(100, key="a", priority=0)
        assert behind == pytest.approx(21, abs=1)
        assert before == pytest.approx(1, abs=0.1)
        assert before <= beside <= 4
        await limiter.aacquire(Cost(100), key="b", priority=1, timeout=5)
        await asyncio.gather(*waiting)

    in_virtual_time(main())


def test_what_is_given_back_wakes_who_waits_for_it():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200)))
        await asyncio.sleep(1)
        start = virtual_now()
        held.cancel()
        await waiting
        assert virtual_now() - start < 1e-3

    in_virtual_time(main())


def test_a_wait_that_became_shorter_is_not_slept_out():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200)))
        await asyncio.sleep(1)
        start = virtual_now()
        # Not enough for the one who waits to go at once, but enough to go in two seconds instead of an hour.
        held.settle(Usage(400, 0))
        await waiting
        assert virtual_now() - start == pytest.approx(3.0, abs=0.2)

    in_virtual_time(main())


def test_a_timeout_ends_a_wait_that_took_longer_than_foreseen():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200), timeout=5))
        await asyncio.sleep(0.5)
        limiter.throttled(429, {"retry-after": "30"})
        with pytest.raises(LimitExceeded, match="within the timeout") as refused:
            await waiting
        assert virtual_now() - start == pytest.approx(5, abs=1e-3)
        assert refused.value.retry_after == pytest.approx(limiter.eta(200), abs=0.5)
        assert limiter.stats().waiting == 0

    in_virtual_time(main())


def test_a_slot_that_nobody_knows_when_it_is_free_is_waited_for_as_long_as_allowed():
    async def main() -> None:
        limiter, start = _virtual(concurrency=1), virtual_now()
        held = await limiter.aacquire(Cost(1))
        late = asyncio.create_task(limiter.aacquire(Cost(1), timeout=3))
        patient = asyncio.create_task(limiter.aacquire(Cost(1), timeout=30))
        await asyncio.sleep(10)
        with pytest.raises(LimitExceeded) as refused:
            await late
        assert refused.value.retry_after < math.inf
        held.settle()
        await patient
        assert virtual_now() - start == pytest.approx(10, abs=1e-2)

    in_virtual_time(main())


def test_the_eta_is_how_long_a_call_will_wait():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        assert limiter.eta(Cost(200)) == 0
        await limiter.aacquire(Cost(200))
        ahead = [asyncio.create_task(limiter.aacquire(Cost(150))) for _ in range(4)]
        await asyncio.sleep(0)
        foreseen, start = limiter.eta("x" * 200, max_tokens=0), virtual_now()
        await limiter.aacquire(Cost(50))
        assert virtual_now() - start == pytest.approx(foreseen, rel=0.05)
        await asyncio.gather(*ahead)

    in_virtual_time(main())


def test_those_who_wait_at_the_gate_go_when_it_opens():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        waiting = [asyncio.create_task(limiter.aacquire(Cost(10))) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.observe(Feedback(429, 20.0))
        await asyncio.gather(*waiting)
        assert virtual_now() - start == pytest.approx(20, abs=0.5)

    in_virtual_time(main())
