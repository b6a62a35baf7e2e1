"""What a limiter is given: limits that cannot work, calls of a wrong type, estimates."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from fakes import Clock

from dispatch_core import ConfigError, Cost, LimitError, LimitExceeded, TokenLimiter, Usage
from dispatch_core.limit.count import TokenEstimator

NAN = float("nan")
LIMITS = ["rpm", "tpm", "itpm", "otpm", "rpd", "tpd", "concurrency"]


@pytest.fixture
def limiter() -> TokenLimiter:
    return TokenLimiter(tpm=6_000, clock=Clock(1_000.0))


@pytest.mark.parametrize("name", [*LIMITS, "window", "burst"])
@pytest.mark.parametrize("value", [0, -1, NAN, math.inf, -math.inf, True, False, "100", "", [100], 1j])
def test_a_limit_that_is_no_positive_number_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        TokenLimiter(**{"tpm": 100, name: value})


@pytest.mark.parametrize("settings", [{}, {"window": 10.0}, {"profile": "openai"}, {"rpm": None, "tpm": None}])
def test_a_limiter_without_limits_is_refused_with_those_it_could_have(settings):
    with pytest.raises(ConfigError) as refused:
        TokenLimiter(**settings)
    assert all(name in str(refused.value) for name in LIMITS)


@pytest.mark.parametrize("settings", [{"rpm": 0.5}, {"rpm": 30, "window": 1}, {"concurrency": 0.5}, {"rpd": 0.1}])
def test_a_limit_that_allows_not_a_single_request_is_refused(settings):
    with pytest.raises(ConfigError, match="not a single request"):
        TokenLimiter(**settings)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [1, 1.5, 1e15])
def test_every_limit_works_alone_and_in_every_size(name, value):
    limiter = TokenLimiter(**{name: value}, clock=Clock(1_000.0))
    limiter.acquire(Cost(1), timeout=0).settle(Usage(1, 0))
    assert limiter.stats().open == 0


@pytest.mark.parametrize("name", ["max_queue", "max_wait"])
@pytest.mark.parametrize("value", [-1, NAN])
def test_a_bound_that_is_negative_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        TokenLimiter(**{"tpm": 100, name: value})


@pytest.mark.parametrize("aging", [0, -1, NAN, math.inf, -math.inf])
def test_an_aging_that_is_no_positive_number_is_refused(aging):
    with pytest.raises(ConfigError, match="aging"):
        TokenLimiter(tpm=100, aging=aging)


@pytest.mark.parametrize("weight", [0, -1, NAN, math.inf])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    with pytest.raises(ConfigError, match="'tenant'"):
        TokenLimiter(tpm=100, weights={"tenant": weight})


def test_weights_are_taken_as_they_were_given():
    weights = {"tenant": 2.0}
    limiter = TokenLimiter(tpm=100, weights=weights)
    weights["tenant"] = 0.0
    limiter.acquire(Cost(1), key="tenant", timeout=0)


# Calls


def _holds_nothing(limiter: TokenLimiter) -> bool:
    stats = limiter.stats()
    return (stats.waiting, stats.open, stats.tokens_used) == (0, 0, 0)


@pytest.mark.parametrize("cost", [Cost(-1), Cost(5, -1)])
def test_a_negative_cost_is_refused(limiter, cost):
    with pytest.raises(ConfigError, match="negative"):
        limiter.acquire(cost)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize(("prompt", "max_tokens"), [(-1, 5), (5, -1), ("x", -1_000_000)])
def test_negative_tokens_are_never_a_credit(limiter, prompt, max_tokens):
    with contextlib.suppress(ConfigError):
        limiter.reserve(prompt, max_tokens=max_tokens)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize("prompt", [None, b"bytes", ["a", "list"], {"role": "user"}, object(), 1j])
def test_a_prompt_of_a_wrong_type_is_refused_and_holds_nothing(limiter, prompt):
    for use in (limiter.reserve, limiter.try_reserve, limiter.eta):
        with pytest.raises((ConfigError, TypeError)):
            use(prompt)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize("tokens", [NAN, math.inf])
@pytest.mark.parametrize("limits", [{"tpm": 6_000}, {"itpm": 6_000}, {"rpm": 60, "tpm": 6_000}])
def test_tokens_that_are_no_number_are_refused(tokens, limits):
    limiter = TokenLimiter(**limits, clock=Clock(1_000.0))
    with pytest.raises((ConfigError, LimitError)):
        limiter.reserve(tokens)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize("priority", [NAN, math.inf, -math.inf, "high", None])
def test_a_priority_that_is_no_number_is_refused(limiter, priority):
    with pytest.raises((ConfigError, TypeError)):
        limiter.reserve(10, priority=priority)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize("timeout", [NAN, "soon"])
def test_a_timeout_that_is_no_number_is_refused(limiter, timeout):
    with pytest.raises((ConfigError, TypeError)):
        limiter.reserve(10, timeout=timeout)
    assert _holds_nothing(limiter)


@pytest.mark.parametrize("timeout", [-1.0, -math.inf])
def test_a_timeout_that_is_over_means_now_or_never(limiter, timeout):
    limiter.acquire(Cost(200), timeout=timeout)
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(200), timeout=timeout)


@pytest.mark.parametrize("usage", [Usage(-5, -5), Usage(-(10**9), 0), Usage(0, -1)])
def test_negative_usage_is_never_a_credit(limiter, usage):
    limiter.acquire(Cost(100)).settle(usage)
    assert limiter.stats().tokens_used == 0
    limiter.acquire(Cost(200), timeout=0)
    assert limiter.try_reserve(200) is None


def test_usage_beyond_all_measure_is_over_after_a_while():
    clock = Clock(1_000.0)
    limiter = TokenLimiter(tpm=6_000, clock=clock)
    limiter.acquire(Cost(100)).settle(Usage(60_000, 0))
    assert limiter.try_reserve(1) is None
    clock.now += 3_600
    assert limiter.try_reserve(1) is not None


# Estimates


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        *[("", 1), ("abcd" * 10, 10), ("a\x00b\x00", 1), ("你好世界" * 10, 30)],
        *[("<|endoftext|>", 3), ("lone \ud800 surrogate", 4)],
    ],
)
def test_every_text_has_an_estimate(limiter, text, tokens):
    assert limiter.estimate(text, max_tokens=7) == Cost(tokens, 7, "", pytest.approx(tokens, abs=1))


def test_a_megabyte_has_an_estimate(limiter):
    assert limiter.estimate("x" * 1_000_000, max_tokens=0).tokens == 250_000


@pytest.mark.parametrize("usage", [Usage(0, 0), Usage(10**9, 0), Usage(1, 0)])
def test_strange_usage_never_ruins_the_estimate(usage):
    clock = Clock(1_000.0)
    limiter = TokenLimiter(rpm=1e9, clock=clock)
    for _ in range(500):
        limiter.acquire(limiter.estimate("x" * 400, max_tokens=0)).settle(usage)
        clock.now += 1
    assert 20 <= limiter.estimate("x" * 400, max_tokens=0).input_tokens <= 500


def test_a_counted_cost_teaches_nothing(limiter):
    limiter.acquire(Cost(100)).settle(Usage(500, 0))
    assert limiter.estimate("x" * 400, max_tokens=0).input_tokens == 100


def test_settling_teaches_the_limiter(limiter):
    before = limiter.estimate("x" * 400, max_tokens=10).input_tokens
    for _ in range(20):
        limiter.acquire(limiter.estimate("x" * 40, max_tokens=0), timeout=0).settle(Usage(1, 0))
    assert limiter.estimate("x" * 400, max_tokens=10).input_tokens < before


def test_an_estimator_of_ones_own_counts_the_prompts():
    def count(text: str) -> int:
        return len(text.split())

    limiter = TokenLimiter(tpm=6_000, estimator=TokenEstimator(count=count, default_output=7))
    assert limiter.estimate("three little words").tokens == 10
    with limiter.reserve("three little words", max_tokens=2) as held:
        assert held.cost.tokens == 5


def test_a_counter_that_fails_leaves_nothing_behind():
    def count(text: str) -> Any:
        raise RuntimeError("no such encoding")

    limiter = TokenLimiter(tpm=6_000, estimator=TokenEstimator(count=count))
    with pytest.raises(RuntimeError, match="no such encoding"), limiter.reserve("text"):
        pass
    assert _holds_nothing(limiter)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue": "3"},
        {"max_wait": "3"},
        {"aging": "3"},
        {"weights": {"a": "3"}},
        {"weights": ["a"]},
        {"clock": 3},
    ],
)
def test_a_setting_of_a_wrong_type_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong)).rstrip("s")):
        TokenLimiter(tpm=100, **wrong)


def test_a_key_that_is_no_text_is_refused_also_when_nobody_waits(limiter):
    with pytest.raises(ConfigError, match="key"):
        limiter.reserve(1, key=["a"])


def test_a_usage_of_a_wrong_type_is_refused_where_it_is_given(limiter):
    held = limiter.acquire(Cost(10))
    with pytest.raises(ConfigError, match="Usage"):
        held.settle({"prompt_tokens": 3})
    held.settle(Usage(5, 0))
    assert limiter.stats().tokens_used == 5


@pytest.mark.parametrize("endless", [math.inf, NAN, -5])
def test_a_usage_that_is_no_number_of_tokens_charges_nothing_strange(limiter, endless):
    limiter.acquire(Cost(10)).settle(Usage(endless, 0))
    assert limiter.stats().tokens_used == 0
