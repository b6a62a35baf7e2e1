"""Invariants of the limiter in virtual time, for any order of events."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes import Clock
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatch_core import Cost, Feedback, LimitExceeded, RequestTooLarge, TokenLimiter, Usage
from dispatch_core.limit.bucket import Dimension, WindowQuota

WINDOW, BURST = 10.0, 2.0
REQUESTS, TOKENS = 8.0, 100.0
CLOSE = 1e-6


@dataclass
class Call:
    """One call and where it is: asleep in the queue until ``wakes``, or admitted with a reservation."""

    cost: Cost
    flow: Any
    waiter: Any = None
    wakes: float = math.inf
    reservation: Any = None


@dataclass
class Charged:
    """What a call was charged, as the provider would count it."""

    at: float
    tokens: float
    refunds: list[tuple[float, float]] = field(default_factory=list)
    requests: float = 1.0


class LimiterMachine(RuleBasedStateMachine):
    """Steps the flows of many callers by hand: a step is a sleep, and the machine decides when sleepers wake."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self.clock = Clock(1_000.0)
        self.latest = self.clock.now
        self.limiter = TokenLimiter(
            rpm=REQUESTS * 60 / WINDOW, tpm=TOKENS * 60 / WINDOW, window=WINDOW, burst=BURST, clock=self.clock
        )
        self.waiting: list[Call] = []
        self.open: list[tuple[Call, Charged]] = []
        self.charged: list[Charged] = []
        self.largest = 0.0
        self.gate = -math.inf

    # Events

    @rule(prompt=st.integers(0, 60), output=st.integers(0, 60), timeout=st.none() | st.sampled_from([0.0, 1.0, 15.0]))
    def ask(self, prompt: int, output: int, timeout: float | None) -> None:
        cost = Cost(prompt, output)
        call = Call(cost, self.limiter.acquire_flow(cost, timeout))
        if cost.tokens > TOKENS:
            with pytest.raises(RequestTooLarge):
                next(call.flow)
            return
        self.waiting.append(call)
        self._resume(call)
        if timeout == 0:
            assert call not in self.waiting
        self._run_all()

    @rule(seconds=st.floats(0, 12))
    def time_passes(self, seconds: float) -> None:
        until = self.elapsed + seconds
        while True:
            first = min((call.wakes for call in self.waiting), default=math.inf)
            if first > until:
                break
            self._move(max(0.0, first - self.elapsed) + 1e-9)
            self._run_all()
        self._move(max(0.0, until - self.elapsed))

    @rule(seconds=st.floats(0, 5))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.clock.now -= seconds

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.floats(0, 1))
    def a_call_is_settled(self, data: st.DataObject, share: float) -> None:
        call, charged = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        used = int(call.cost.tokens * share)
        for tokens in (used, 0, call.cost.tokens):
            call.reservation.settle(Usage(tokens, 0))
        call.reservation.cancel()
        self._refund(charged, used)
        self._run_all()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_call_is_given_back(self, data: st.DataObject) -> None:
        call, charged = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        call.reservation.cancel()
        call.reservation.settle(Usage(1_000_000, 0))
        charged.requests = 0.0
        self._refund(charged, 0)
        self._run_all()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_waiting_call_is_cancelled(self, data: st.DataObject) -> None:
        call = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        with pytest.raises(asyncio.CancelledError):
            call.flow.throw(asyncio.CancelledError())
        self._run_all()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_call_is_cancelled_as_it_is_admitted(self, data: st.DataObject) -> None:
        """The cancellation comes after the admission, before the caller could take note of it."""
        call = self.waiting[0]
        self._move(max(0.0, call.wakes - self.elapsed) + 1e-9 if call.wakes < math.inf else 0.0)
        self.limiter._alone(lambda: self.limiter._admit(self.clock.now))
        self.waiting.pop(0)
        with pytest.raises(asyncio.CancelledError):
            call.flow.throw(asyncio.CancelledError())
        self._run_all()

    @rule(seconds=st.floats(0, 5))
    def the_provider_refuses(self, seconds: float) -> None:
        self.limiter.observe(Feedback(429, seconds))
        self.gate = max(self.gate, self.clock.now + seconds)

    # Invariants

    @invariant()
    def the_books_agree(self) -> None:
        stats = self.limiter.stats()
        assert (stats.waiting, stats.open) == (len(self.waiting), len(self.open))
        assert stats.tokens_used <= TOKENS + CLOSE
        assert stats.requests_used <= REQUESTS + CLOSE

    @invariant()
    def no_window_holds_more_than_the_limit(self) -> None:
        for end in [charged.at for charged in self.charged]:
            inside = [c for c in self.charged if end - WINDOW < c.at <= end]
            assert sum(c.tokens for c in inside) <= TOKENS + CLOSE
            assert sum(c.requests for c in inside) <= REQUESTS + CLOSE

    @invariant()
    def no_interval_holds_more_than_the_burst_and_the_rate(self) -> None:
        burst, rate = TOKENS / WINDOW * BURST, TOKENS / WINDOW
        flows = [(c.at, c.tokens + sum(amount for _, amount in c.refunds)) for c in self.charged]
        flows += [(at, -amount) for c in self.charged for at, amount in c.refunds]
        for start in {at for at, _ in flows}:
            net = sum(amount for at, amount in flows if at >= start)
            assert net <= burst + self.largest + rate * (self.latest - start) + CLOSE

    @invariant()
    def nobody_sleeps_while_the_head_fits(self) -> None:
        if not self.waiting:
            return
        head, limiter = self.waiting[0], self.limiter
        assert limiter._queue[0] is head.waiter
        fits_in = max(limiter._quota.wait(head.waiter.amounts, self.clock.now), limiter._gate - self.clock.now)
        assert fits_in > 0
        assert head.wakes <= self.elapsed + fits_in + CLOSE

    def teardown(self) -> None:
        """In the end everyone is admitted or refused, whatever came before."""
        for _ in range(10_000):
            if not self.waiting:
                break
            first = min(call.wakes for call in self.waiting)
            assert first < math.inf, "everybody sleeps and nobody will ever wake them"
            self._move(max(0.0, first - self.elapsed) + 1e-6)
            self._run_all()
        assert not self.waiting
        for call, _ in self.open:
            call.reservation.settle(None)
        assert self.limiter.stats().open == 0

    # The world

    def _move(self, seconds: float) -> None:
        self.elapsed += seconds
        self.clock.now += seconds
        self.latest = max(self.latest, self.clock.now)

    def _refund(self, charged: Charged, used: float) -> None:
        charged.refunds.append((self.latest, charged.tokens - used))
        charged.tokens = used

    def _run_all(self) -> None:
        """Let everyone run who was woken or whose time has come, until all sleep. Later ones first, to be unfair."""
        while True:
            awake = [c for c in reversed(self.waiting) if c.waiter._woken or c.wakes <= self.elapsed]
            if not awake:
                return
            for call in awake:
                if call in self.waiting:
                    self._resume(call)

    def _resume(self, call: Call) -> None:
        try:
            step = next(call.flow) if call.waiter is None else self._woken(call)
        except StopIteration as admitted:
            self._admit(call, admitted.value)
        except LimitExceeded:
            self.waiting.remove(call)
        else:
            call.waiter = step.call.__self__
            [seconds] = step.args
            call.wakes = math.inf if seconds is None else self.elapsed + max(seconds, 1e-9)

    def _woken(self, call: Call) -> Any:
        call.waiter._woken = False
        return call.flow.send(None)

    def _admit(self, call: Call, reservation: Any) -> None:
        earlier = self.waiting[: self.waiting.index(call)]
        assert all(other.waiter.charge is not None for other in earlier), "not first come, first served"
        assert self.clock.now >= self.gate, "admitted while the provider refuses"
        self.waiting.remove(call)
        call.reservation = reservation
        charged = Charged(reservation._charge.at, call.cost.tokens)
        self.largest = max(self.largest, charged.tokens)
        self.charged.append(charged)
        self.open.append((call, charged))


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase


# The arithmetic alone

AMOUNTS = st.integers(0, 40)
GAPS = st.floats(0, 6)


def _quota() -> WindowQuota:
    return WindowQuota([Dimension("tokens", 40.0, 10.0, 12.0)], window=10.0, pad=0.5)


def _is_full(quota: WindowQuota) -> bool:
    return any(dimension.level >= dimension.burst for dimension in quota.dimensions)


@given(AMOUNTS, st.data(), st.lists(st.tuples(GAPS, st.integers(1, 20)), max_size=5), GAPS)
def test_reserving_and_settling_equals_having_charged_what_was_used(reserved, data, between, last):
    """As long as the bucket was not full again meanwhile; what overflowed cannot be told from what was saved."""
    used = data.draw(st.integers(0, reserved))
    settled, charged = _quota(), _quota()
    charge, now = settled.charge([reserved], 0.0), 0.0
    charged.charge([used], 0.0)
    for gap, amount in between:
        now += gap
        for quota in (settled, charged):
            quota.wait([0], now)
        assume(not _is_full(charged))
        for quota in (settled, charged):
            quota.charge([amount], now)
    settled.wait([0], now)
    settled.settle(charge, [used])
    for probe in (0, 1, 12, 40):
        assert settled.wait([probe], now + last) == pytest.approx(charged.wait([probe], now + last), abs=CLOSE)


@given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=12), st.floats(0, 30))
def test_waiting_as_long_as_told_is_enough(charges, later):
    quota, now = _quota(), 0.0
    for gap, amount in charges:
        now += gap
        told = quota.wait([amount], now)
        now += told
        assert quota.wait([amount], now) == 0
        quota.charge([amount], now)
    assert quota.wait([40], now + later) <= 10.5 + 40 / 4


@given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=12), AMOUNTS)
def test_waiting_less_than_told_is_not_enough(charges, amount):
    quota, now = _quota(), 0.0
    for gap, charged in charges:
        now += gap + quota.wait([charged], now + gap)
        quota.charge([charged], now)
    told = quota.wait([amount], now)
    assume(told > CLOSE)
    assert quota.wait([amount], now + 0.99 * told) > 0


@given(st.lists(st.tuples(st.floats(-20, 20), AMOUNTS), min_size=1, max_size=12))
def test_a_jumping_clock_never_lets_more_through_than_its_furthest_reading(events):
    quota, now, furthest, total = _quota(), 0.0, 0.0, 0
    quota.wait([0], now)
    for jump, amount in events:
        now += jump
        furthest = max(furthest, now)
        if quota.wait([amount], now) == 0:
            quota.charge([amount], now)
            total += amount
    assert total <= 12 + 40 + 4 * furthest + CLOSE


@given(AMOUNTS, AMOUNTS, st.floats(0, 30))
def test_a_cancel_leaves_the_state_as_if_it_never_came(before, cancelled, later):
    with_it, without = _quota(), _quota()
    for quota in (with_it, without):
        quota.charge([before], 0.0)
    charge = with_it.charge([cancelled], 0.0)
    with_it.wait([0], later)
    with_it.settle(charge, [0])
    for probe in (0, 1, 12, 40):
        assert with_it.wait([probe], later) == pytest.approx(without.wait([probe], later), abs=CLOSE)
