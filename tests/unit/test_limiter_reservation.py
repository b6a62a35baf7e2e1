"""What a caller holds: contexts, settling, and what the provider's answers do to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import FORMS, Clock
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import Cost, Feedback, LimitExceeded, TokenLimiter, Usage
from dispatch_core.limit.profile import PROFILES


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


# Contexts


async def test_a_context_keeps_the_estimate_of_what_was_not_settled(limiter, form):
    if form == "sync":
        with limiter.reserve(40, max_tokens=60) as reservation:
            assert limiter.stats().open == 1
    else:
        async with limiter.reserve(40, max_tokens=60) as reservation:
            assert limiter.stats().open == 1
    assert reservation.cost.tokens == 100
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 100)


def test_the_context_is_the_reservation(limiter):
    reservation = limiter.reserve(40)
    with reservation as entered:
        assert entered is reservation


def test_a_reservation_that_is_never_entered_holds_nothing(limiter):
    reservation = limiter.reserve(200)
    assert limiter.stats().open == 0
    reservation.settle(Usage(100, 0))
    reservation.cancel()
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 0)


@pytest.mark.parametrize("prompt", ["x" * 160, 40, Cost(40, 60)], ids=["text", "tokens", "cost"])
def test_a_prompt_is_a_text_a_number_or_a_cost(limiter, prompt):
    with limiter.reserve(prompt, max_tokens=60) as reservation:
        assert reservation.cost.tokens == 100
        reservation.settle(Usage(10, 20))
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 30)


async def _fail_inside(limiter: TokenLimiter, form: str) -> None:
    """Hold a place, now or never, and fail."""
    if form == "sync":
        with limiter.reserve(50, timeout=0):
            raise ValueError("upstream")
    async with limiter.reserve(50, timeout=0):
        raise ValueError("upstream")


async def test_a_context_that_raises_keeps_its_charge(limiter, form):
    for _ in range(2):
        with pytest.raises(ValueError, match="upstream"):
            await _fail_inside(limiter, form)
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 100)


def test_what_was_never_sent_is_given_back_inside_the_context(limiter):
    with limiter.reserve(150) as reservation:
        reservation.cancel()
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 0)


async def test_a_context_that_is_not_admitted_holds_nothing(limiter, form):
    limiter.acquire(Cost(200)).settle()
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            await _fail_inside(limiter, form)
    assert limiter.stats().open == 0


@pytest.mark.parametrize("ends", [["settle", "cancel"], ["cancel", "settle"], ["settle", "settle", "throttled"]])
def test_only_the_first_end_counts(limiter, ends):
    held = limiter.acquire(Cost(100))
    first = {"settle": 30, "cancel": 0}[ends[0]]
    for end in ends:
        if end == "settle":
            held.settle(Usage(30, 0))
        elif end == "cancel":
            held.cancel()
        else:
            held.throttled(429)
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, first)


# Refusals of the provider


@pytest.mark.parametrize("status", [429, 529])
def test_after_a_refusal_of_the_provider_nobody_is_admitted_for_a_while(limiter, clock, status):
    assert limiter.throttled(status, {"retry-after": "3"}) is not None
    assert limiter.eta(Cost(1)) == pytest.approx(3.0, abs=0.1)
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(1), timeout=2.9)
    clock.now += 3.1
    limiter.acquire(Cost(1), timeout=0)
    assert limiter.stats().throttled == 1


@pytest.mark.parametrize(
    ("headers", "body", "pause"),
    [
        ({}, None, 1),
        ({"retry-after": "0"}, None, 0),
        ({"Retry-After": "7"}, None, 7),
        ({"retry-after-ms": "2500"}, None, 2.5),
        ({}, {"error": {"message": "Rate limit reached. Please try again in 4s."}}, 4),
        ({"retry-after": "1000000000"}, None, 60),
        ({"retry-after": "-5"}, None, 1),
        ({"retry-after": "nan"}, None, 1),
        ({"retry-after": "inf"}, None, 1),
        ({"retry-after": "1e309"}, None, 1),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None, 1),
        ({"retry-after": "soon"}, b"\xff\xfe", 1),
    ],
)
def test_the_pause_is_what_the_provider_wants_within_reason(limiter, headers, body, pause):
    limiter.throttled(429, headers, body)
    assert limiter.eta(Cost(1)) == pytest.approx(pause, abs=0.1)


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [(None, 1), (3.0, 3), (0.0, 0), (float("nan"), 1), (-5.0, 1), (float("inf"), 1), (1e9, 60)],
)
def test_the_pause_of_feedback_is_kept(limiter, retry_after, pause):
    limiter.observe(Feedback(429, retry_after))
    assert limiter.eta(Cost(1)) == pytest.approx(pause, abs=0.1)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_other_answers_close_no_gate(limiter, status):
    assert limiter.throttled(status, {"retry-after": "30"}) is None
    limiter.observe(Feedback(status, 30.0))
    with limiter.reserve(10) as held:
        assert not held.throttled(status, {"retry-after": "30"})
        assert limiter.stats().open == 1
    assert limiter.eta(Cost(1)) == 0
    assert limiter.stats().throttled == 0


def test_a_spent_budget_is_no_rate_and_closes_no_gate(limiter):
    spent = {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}
    held = limiter.acquire(Cost(10))
    assert not held.throttled(429, {}, spent)
    limiter.throttled(429, {}, spent)
    assert limiter.eta(Cost(1)) == 0
    assert limiter.stats().open == 1


def test_a_shorter_gate_never_opens_a_longer_one(limiter):
    limiter.throttled(429, {"retry-after": "30"})
    limiter.throttled(429, {"retry-after": "1"})
    assert limiter.eta(Cost(1)) == pytest.approx(30, abs=0.1)


def test_what_was_refused_is_given_back(limiter):
    held = limiter.acquire(Cost(150))
    assert held.throttled(429, {"retry-after": "0"})
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 0)


def test_a_refused_call_comes_again_inside_its_context(clock):
    limiter = TokenLimiter(tpm=6_000, rpm=600, clock=clock)
    with limiter.reserve(100) as held:
        assert held.throttled(429, {"retry-after": "0"})
        assert limiter.stats().open == 0
        clock.now += 10
        held.again()
        assert limiter.stats().open == 1
        held.settle(Usage(80, 0))
    assert (limiter.stats().open, limiter.stats().tokens_used, limiter.stats().admitted) == (0, 80, 2)


def test_a_call_that_comes_again_keeps_its_timeout(clock):
    limiter = TokenLimiter(tpm=6_000, clock=clock)
    held = limiter.reserve(100, timeout=5.0)
    with held:
        held.throttled(429, {"retry-after": "30"})
        with pytest.raises(LimitExceeded):
            held.again()
    assert limiter.stats().open == 0


def test_calls_that_come_again_go_after_the_gate_and_before_everybody_in_the_order_they_first_came():
    async def main() -> None:
        limiter, order = _virtual(tpm=6_000), []

        async def ask(name: str, priority: float) -> None:
            async with limiter.reserve(150, priority=priority):
                order.append((name, virtual_now()))

        async def come_again(held: Any, name: str) -> None:
            await held.aagain()
            order.append((name, virtual_now()))

        first = await limiter.aacquire(Cost(100))
        await asyncio.sleep(0.1)
        second = await limiter.aacquire(Cost(100))
        others = [asyncio.create_task(ask(f"other {n}", -n)) for n in range(3)]
        await asyncio.sleep(0.1)
        gate = virtual_now() + 5
        for held in (second, first):
            assert held.throttled(429, {"retry-after": "5"})
        again = [asyncio.create_task(come_again(second, "second")), asyncio.create_task(come_again(first, "first"))]
        await asyncio.gather(*again, *others)
        assert [name for name, at in order if at >= gate][:2] == ["first", "second"]

    in_virtual_time(main())


def test_who_comes_again_need_not_fear_those_who_came_later():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(100), timeout=10.0)
        waiting = [asyncio.create_task(limiter.aacquire(Cost(200))) for _ in range(20)]
        await asyncio.sleep(0.5)
        held.throttled(429, {"retry-after": "2"})
        # Forty seconds' worth of calls are waiting, all of them behind this one.
        await held.aagain()
        held.settle()
        await asyncio.gather(*waiting)

    in_virtual_time(main())


# Headers


def _told(limiter: TokenLimiter, headers: dict[str, str], tokens: int = 1) -> None:
    limiter.acquire(Cost(tokens), timeout=0).settle(Usage(tokens, 0), headers)


@pytest.mark.parametrize("profile", ["openai", "window"])
def test_a_limit_in_the_headers_is_kept(profile, clock):
    limiter = TokenLimiter(tpm=60_000, profile=profile, clock=clock)
    for _ in range(10):
        _told(limiter, {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "29000"})
        clock.now += 100
    assert limiter.stats().gauges["tokens"].share == pytest.approx(0.5)
    assert limiter.stats().gauges["tokens"].limit == 60_000


def test_headers_in_another_case_of_a_provider_with_other_names(clock):
    limiter = TokenLimiter(itpm=60_000, profile="anthropic", clock=clock)
    for _ in range(10):
        _told(limiter, {"Anthropic-RateLimit-Input-Tokens-Limit": "30000"})
        clock.now += 1
    assert limiter.stats().gauges["input_tokens"].share == pytest.approx(0.5)


@pytest.mark.parametrize("profile", [name for name, profile in PROFILES.items() if profile.headers is None])
def test_a_provider_without_headers_learns_nothing_from_them(profile, clock):
    limiter = TokenLimiter(tpm=60_000, profile=profile, clock=clock)
    for _ in range(10):
        _told(limiter, {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "0"})
        clock.now += 1
    assert limiter.stats().gauges["tokens"].share == 1


@pytest.mark.parametrize("headers", [{}, {"x-unrelated": "7"}, {"x-ratelimit-limit-tokens": None}, {"x": 3}])
def test_headers_that_say_nothing_change_nothing(limiter, headers):
    _told(limiter, headers)
    limiter.throttled(200, headers)
    assert limiter.stats().gauges["tokens"].share == 1
    assert limiter.eta(Cost(100)) == 0


@pytest.mark.parametrize("others", [{"rpd": 100}, {"concurrency": 100}])
def test_a_refusal_that_names_no_limit_blames_one_that_a_pause_mends(others):
    limiter = TokenLimiter(rpm=6_000, clock=Clock(1_000.0), **others)
    for _ in range(90):
        limiter.acquire(Cost(1))
    limiter.throttled(429)
    assert limiter.stats().gauges["requests"].share < 1


def test_a_refusal_for_a_day_that_we_do_not_count_costs_the_minute_nothing():
    limiter = TokenLimiter(rpm=600, clock=Clock(1_000.0))
    limiter.throttled(429, {}, {"error": {"message": "Rate limit reached on requests per day (RPD)"}})
    assert limiter.stats().gauges["requests"].share == 1
