"""A provider whose headers lie and whose refusals come at random, and who then is good again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import pytest
from fakes import Clock
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dispatch_core import Cost, LimitExceeded, TokenLimiter, Usage

LIMIT, WINDOW = 6_000, 60.0
NUMBERS = st.one_of(
    st.integers(-1, 2 * LIMIT).map(str),
    st.sampled_from(
        ["0", "1", "100", "1000", "6000", "1e309", "-5", "nan", "inf", "", "٣", "999999999999999", "0.0", "x"]
    ),
)
RESETS = st.sampled_from(["0s", "1s", "6m0s", "-1s", "1970-01-01T00:00:00Z", "9999999h", "soon", "120ms"])
PAUSES = st.sampled_from(["0", "1", "30", "1e309", "-1", "nan", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "1000000"])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-ratelimit-limit-tokens": NUMBERS,
        "x-ratelimit-remaining-tokens": NUMBERS,
        "x-ratelimit-reset-tokens": RESETS,
        "x-ratelimit-limit-requests": NUMBERS,
        "x-ratelimit-remaining-requests": NUMBERS,
        "retry-after": PAUSES,
    },
)


@dataclass
class Lie:
    gap: float
    tokens: int
    flying: int
    status: int
    headers: dict[str, str]


LIES = st.lists(
    st.builds(
        Lie,
        gap=st.floats(0, 20),
        tokens=st.integers(1, 3_000),
        flying=st.integers(0, 3),
        status=st.sampled_from([200, 200, 200, 429, 529]),
        headers=HEADERS,
    ),
    min_size=1,
    max_size=40,
)


class _World:
    def __init__(self, profile: str) -> None:
        self.clock = Clock(1_000.0)
        self.limiter = TokenLimiter(tpm=LIMIT, rpm=600, profile=profile, clock=self.clock)
        self.spent: list[tuple[float, int]] = []
        self._level, self._at = float(LIMIT), 0.0

    def admit(self, tokens: int):
        """Wait as long as told, time and again."""
        for _ in range(2_000):
            try:
                held = self.limiter.acquire(Cost(tokens), timeout=0)
            except LimitExceeded as refused:
                self.clock.now += min(max(refused.retry_after, 0.01), 600)
            else:
                self.spent.append((held.charge.at, tokens))
                return held
        raise AssertionError("told to wait two thousand times and still not admitted")

    def suffer(self, lies: list[Lie]) -> None:
        flying: deque = deque()
        for lie in lies:
            self.clock.now += lie.gap
            flying.append((self.admit(lie.tokens), lie))
            while len(flying) > lie.flying:
                held, told = flying.popleft()
                if told.status == 200:
                    held.settle(Usage(held.cost.tokens, 0), told.headers)
                else:
                    # A refused call counts for nothing.
                    self.spent.remove((held.charge.at, held.cost.tokens))
                    held.throttled(told.status, told.headers)

    def spend(self, seconds: float, tokens: int = 300) -> int:
        """An honest server, asked by somebody who always wants more; what is admitted."""
        until, spent = self.clock.now + seconds, 0
        while self.clock.now < until:
            held = self.admit(tokens)
            told = {"x-ratelimit-limit-tokens": str(LIMIT), "x-ratelimit-remaining-tokens": str(self._left(tokens))}
            held.settle(Usage(tokens, 0), told)
            spent += tokens
        return spent

    def _left(self, tokens: int) -> int:
        now = self.clock.now
        if self.limiter.limits.profile.counting == "window":
            return LIMIT - sum(amount for at, amount in self.spent[-300:] if at > now - WINDOW)
        refilled = min(LIMIT, self._level + (now - self._at) * LIMIT / WINDOW)
        self._level, self._at = max(0.0, refilled - tokens), now
        return int(self._level)


def _keeps_its_windows(spent: list[tuple[float, int]]) -> bool:
    return all(sum(n for at, n in spent if end - WINDOW < at <= end) <= LIMIT for end, _ in spent)


@settings(max_examples=60, deadline=None)
@given(LIES)
def test_whatever_the_headers_say_no_window_holds_more_than_was_configured(lies):
    world = _World("window")
    world.suffer(lies)
    assert _keeps_its_windows(world.spent)


@settings(max_examples=60, deadline=None)
@given(LIES)
def test_whatever_the_headers_say_a_mirror_lends_no_more_than_the_server_can_hold(lies):
    """Its level, once full, and the rate: what an honest server grants at most."""
    world = _World("openai")
    world.suffer(lies)
    largest = max((tokens for _, tokens in world.spent), default=0)
    for since, _ in world.spent:
        spent = sum(tokens for at, tokens in world.spent if at >= since)
        assert spent <= LIMIT + largest + LIMIT / WINDOW * (world.clock.now - since)


@pytest.mark.parametrize("profile", ["window", "openai"])
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(lies=LIES)
def test_when_the_server_is_good_again_the_limiter_comes_back_to_life(profile, lies):
    world = _World(profile)
    world.suffer(lies)
    world.spend(3_600)
    assert world.spend(600) >= 0.8 * 10 * LIMIT


@pytest.mark.parametrize("profile", ["window", "openai"])
@pytest.mark.parametrize("remaining", ["0", "1", "3000"])
def test_a_server_that_said_for_long_that_nothing_is_left_is_believed_when_there_is(profile, remaining):
    world = _World(profile)
    headers = {"x-ratelimit-limit-tokens": str(LIMIT), "x-ratelimit-remaining-tokens": remaining}
    world.suffer([Lie(5.0, 100, 0, 200, headers)] * 40)
    world.spend(3_600)
    assert world.spend(600) >= 0.8 * 10 * LIMIT
