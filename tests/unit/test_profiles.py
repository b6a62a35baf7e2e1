"""Each provider's way of counting, as a limiter shows it."""

from __future__ import annotations

import math

import pytest
from fakes import Clock

from dispatch_core import ConfigError, Cost, LimitExceeded, RequestTooLarge, TokenLimiter, Usage
from dispatch_core.limit.profile import PROFILES, Profile, profile_named

NAMES = sorted(PROFILES)


def _limiter(profile: str, clock: Clock | None = None, **limits: float) -> TokenLimiter:
    return TokenLimiter(profile=profile, clock=clock or Clock(1_000.0), **limits)


def _spent_in(limiter: TokenLimiter, clock: Clock, seconds: float, tokens: int) -> int:
    """How many tokens are admitted by somebody who always asks for more."""
    spent, until = 0, clock.now + seconds
    while clock.now < until:
        try:
            limiter.acquire(Cost(tokens), timeout=0).settle()
            spent += tokens
        except LimitExceeded as refused:
            clock.now += max(refused.retry_after, 1e-3)
    return spent


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_found_by_its_name(name):
    assert profile_named(name).name == name


@pytest.mark.parametrize("name", ["opnai", "", "OpenAI", None, 3, ["openai"]])
def test_a_profile_that_does_not_exist_is_refused_with_those_that_do(name):
    with pytest.raises(ConfigError) as refused:
        TokenLimiter(tpm=100, profile=name)
    assert all(known in str(refused.value) for known in NAMES)


def test_a_profile_of_ones_own_is_taken_as_it_is():
    own = Profile(name="own", counting="window", burst=5.0)
    assert TokenLimiter(tpm=100, profile=own).limits.profile is own


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_uses_its_limit_up_and_stays_near_it(name):
    clock = Clock(1_000.0)
    limiter = _limiter(name, clock, tpm=6_000)
    spent = _spent_in(limiter, clock, 600, 50)
    assert 0.95 * 60_000 <= spent <= 60_000 + 6_000


@pytest.mark.parametrize("name", [name for name in NAMES if PROFILES[name].counting == "window"])
def test_a_window_never_holds_more_than_the_limit(name):
    clock = Clock(1_000.0)
    limiter = _limiter(name, clock, tpm=6_000)
    times: list[float] = []
    while clock.now < 1_400:
        try:
            limiter.acquire(Cost(50), timeout=0).settle()
            times.append(clock.now)
        except LimitExceeded as refused:
            clock.now += max(refused.retry_after, 1e-3)
        if 1_100 < clock.now < 1_130:
            clock.now = 1_130
    assert max(sum(50 for at in times if end - 60 < at <= end) for end in times) <= 6_000


@pytest.mark.parametrize("name", NAMES)
def test_no_profile_spends_a_minute_at_once(name):
    limiter = _limiter(name, tpm=60_000)
    spent = 0
    while limiter.try_reserve(500) is not None:
        spent += 500
    assert 0 < spent <= 60_000 / 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limits", [{"tpm": 100}, {"itpm": 100}, {"tpm": 100, "rpm": 60}, {"tpm": 600, "window": 10}])
def test_every_profile_refuses_what_can_never_fit_and_admits_what_just_does(name, limits):
    limiter = _limiter(name, **limits)
    with pytest.raises(RequestTooLarge) as refused:
        limiter.reserve(101)
    assert (refused.value.requested, refused.value.limit) == (101, 100)
    clock = Clock(1_000.0)
    limiter = _limiter(name, clock, **limits)
    for _ in range(3):
        wait = limiter.eta(100)
        assert wait <= 130
        clock.now += wait
        limiter.acquire(Cost(100), timeout=1e-6).settle()


def test_azures_requests_are_spread_over_the_slices_of_a_second():
    limiter = _limiter("azure", rpm=600)
    at_once = 0
    while limiter.try_reserve(1) is not None:
        at_once += 1
    assert at_once <= 10
    assert limiter.stats().gauges["requests"].limit < 600


# What is counted


def test_all_limits_are_kept_at_once():
    limiter = TokenLimiter(
        rpm=60, tpm=6_000, itpm=5_000, otpm=1_000, rpd=500, tpd=1e6, concurrency=3, clock=Clock(1_000.0)
    )
    held = limiter.acquire(Cost(30, 10))
    gauges = limiter.stats().gauges
    assert {name: gauge.limit for name, gauge in gauges.items()} == {
        "requests": 60,
        "tokens": 6_000,
        "input_tokens": 5_000,
        "output_tokens": 1_000,
        "requests_per_day": 500,
        "tokens_per_day": 1e6,
        "concurrency": 3,
    }
    held.settle(Usage(25, 7))
    used = {name: gauge.used for name, gauge in limiter.stats().gauges.items()}
    assert used == {
        "requests": 1,
        "tokens": 32,
        "input_tokens": 25,
        "output_tokens": 7,
        "requests_per_day": 1,
        "tokens_per_day": 32,
        "concurrency": 0,
    }


def test_input_tokens_are_charged_without_the_answer():
    limiter = _limiter("anthropic", itpm=600)
    limiter.acquire(Cost(10, 100_000), timeout=0)
    assert limiter.stats().gauges["input_tokens"].used == 10


def test_output_tokens_are_charged_as_they_come_and_not_as_they_were_allowed():
    limiter = _limiter("anthropic", otpm=60_000)
    held = limiter.acquire(Cost(10, 50_000), timeout=0)
    assert limiter.stats().gauges["output_tokens"].used < 1_000
    held.settle(Usage(10, 700))
    assert limiter.stats().gauges["output_tokens"].used == 700


def test_requests_of_a_day_may_be_used_at_once_and_no_more_than_once_a_day():
    clock = Clock(1_000.0)
    limiter = _limiter("gemini", clock, rpd=50)
    for _ in range(50):
        limiter.acquire(Cost(1), timeout=0).settle()
    assert limiter.try_reserve(1) is None
    clock.now += 86_399
    assert limiter.try_reserve(1) is None
    clock.now += 3_600
    assert limiter.try_reserve(1) is not None


def test_tokens_of_a_day_follow_what_was_really_used():
    clock = Clock(1_000.0)
    limiter = _limiter("openai", clock, tpd=1_000)
    limiter.acquire(Cost(400, 500), timeout=0).settle(Usage(400, 100))
    assert limiter.eta(500) == 0
    assert limiter.eta(501) == pytest.approx(86_400, rel=0.01)


def test_concurrency_is_a_slot_until_the_answer_is_there():
    limiter = _limiter("deepseek", concurrency=2)
    first, _ = limiter.acquire(Cost(10**9), timeout=0), limiter.acquire(Cost(1), timeout=0)
    assert limiter.try_reserve(1) is None
    assert limiter.eta(1) > 0
    first.settle(Usage(10**9, 10**9))
    assert limiter.try_reserve(1) is not None


def test_slow_first_tokens_take_slots_and_quick_ones_bring_them_back():
    limiter = _limiter("deepseek", concurrency=16)

    def at_once(first_token: float) -> int:
        held = []
        while (one := limiter.try_reserve(10)) is not None:
            held.append(one)
        for one in held:
            one.settle(Usage(10, 10), first_token=first_token)
        return len(held)

    assert [at_once(0.3) for _ in range(5)] == [16] * 5
    for _ in range(3):
        at_once(20.0)
    assert at_once(20.0) < 16
    for _ in range(50):
        at_once(0.3)
    assert at_once(0.3) == 16


@pytest.mark.parametrize("first_token", [math.nan, math.inf, -1.0, 0.0])
def test_a_first_token_at_no_time_is_ignored(first_token):
    limiter = _limiter("deepseek", concurrency=4)
    for _ in range(50):
        limiter.acquire(Cost(10), timeout=0).settle(Usage(10, 0), first_token=first_token)
    assert limiter.stats().gauges["concurrency"].used == 0
    assert all(limiter.try_reserve(1) is not None for _ in range(4))


@pytest.mark.parametrize(("counts_failures", "counted"), [(True, 1), (False, 0)])
def test_whether_a_refused_call_counts_as_a_request_is_up_to_the_provider(counts_failures, counted):
    own = Profile(name="own", counting="window", counts_failures=counts_failures)
    limiter = TokenLimiter(rpm=600, tpm=60_000, profile=own, clock=Clock(1_000.0))
    held = limiter.acquire(Cost(100), timeout=0)
    assert limiter.stats().gauges["requests"].used == 1
    assert held.throttled(429, {"retry-after": "0"})
    gauges = limiter.stats().gauges
    assert (gauges["requests"].used, gauges["tokens"].used) == (counted, 0)
