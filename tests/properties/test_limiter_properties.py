"""Invariants of the limiter in virtual time, for any order of events, in every way of counting."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes import Clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatch_core import Cost, LimitExceeded, RequestTooLarge, TokenLimiter, Usage
from dispatch_core.limit.profile import profile_named

REQUESTS, TOKENS = 8.0, 100.0
CLOSE = 1e-6
_SOONEST = 1e-9
_OVERDUE = 0.5


@dataclass(eq=False)
class Call:
    """One call and where it is: asleep in the line until ``wakes``, or admitted."""

    held: Any
    flow: Any = None
    waiter: Any = None
    slept: float = 0.0
    wakes: float = math.inf
    deadline: float = math.inf

    @property
    def kind(self) -> tuple[float, str, bool]:
        return self.held.priority, self.held.key, self.held.since is not None


@dataclass(eq=False)
class Charged:
    """What a call was charged, as the provider would count it."""

    at: float
    tokens: float
    refunds: list[tuple[float, float]] = field(default_factory=list)
    requests: float = 1.0


class LimiterMachine(RuleBasedStateMachine):
    """Steps the flows of many callers by hand: a step is a sleep, and the machine decides when sleepers wake."""

    profile = "window"
    window = 10.0
    burst: Any = 2.0
    slots: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self.clock = Clock(1_000.0)
        self.latest = self.clock.now
        profile = profile_named(self.profile)
        self.windowed = profile.counting == "window"
        self.catch_up = profile.catch_up if self.burst == "auto" else 0.0
        self.limiter = TokenLimiter(
            rpm=REQUESTS * 60 / self.window,
            tpm=TOKENS * 60 / self.window,
            concurrency=self.slots,
            profile=profile,
            window=self.window,
            burst=self.burst,
            weights={"heavy": 2.0},
            clock=self.clock,
        )
        self.desk = self.limiter._desk
        self.waiting: list[Call] = []
        self.open: list[tuple[Call, Charged]] = []
        self.refused: list[Call] = []
        self.charged: list[Charged] = []
        self.largest = 0.0
        self.gate = -math.inf
        self.learned = False

    # Events

    @rule(
        prompt=st.integers(0, 60),
        output=st.integers(0, 60),
        timeout=st.none() | st.sampled_from([0.0, 1.0, 15.0]),
        priority=st.sampled_from([0, 0, 1]),
        key=st.sampled_from(["", "heavy"]),
    )
    def ask(self, prompt: int, output: int, timeout: float | None, priority: float, key: str) -> None:
        cost = Cost(prompt, output)
        if cost.tokens > TOKENS:
            with pytest.raises(RequestTooLarge):
                self.limiter.reserve(cost)
            return
        call = Call(self.limiter.reserve(cost, timeout=timeout, priority=priority, key=key))
        self._enter(call, timeout)
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
            self._move(max(0.0, first - self.elapsed) + _SOONEST)
            self._run_all()
        self._move(max(0.0, until - self.elapsed))

    @rule(seconds=st.floats(0, 5))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.clock.now -= seconds

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.floats(0, 1))
    def a_call_is_settled(self, data: st.DataObject, share: float) -> None:
        call, charged = self._pick(data, self.open)
        used = int(call.held.cost.tokens * share)
        for tokens in (used, 0, call.held.cost.tokens):
            call.held.settle(Usage(tokens, 0))
        call.held.cancel()
        self._refund(charged, used)
        self._run_all()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_call_is_given_back(self, data: st.DataObject) -> None:
        call, charged = self._pick(data, self.open)
        call.held.cancel()
        call.held.settle(Usage(1_000_000, 0))
        charged.requests = 0.0
        self._refund(charged, 0)
        self._run_all()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_waiting_call_is_cancelled(self, data: st.DataObject) -> None:
        self._cancel(self._pick(data, self.waiting))
        self._run_all()

    @precondition(lambda self: self.waiting)
    @rule()
    def a_call_is_cancelled_as_it_is_admitted(self) -> None:
        """The cancellation comes after the admission, before the caller could take note of it."""
        head = next(call for call in self.waiting if self.desk.line.head() is call.waiter)
        self._move(max(0.0, head.wakes - self.elapsed) + _SOONEST if head.wakes < math.inf else 0.0)
        self.desk.serial.alone(lambda: self.desk._admit(self.clock.now))
        self.waiting.remove(head)
        self._cancel(head)
        self._run_all()

    @rule(seconds=st.floats(0, 5))
    def the_provider_refuses_somebody_else(self, seconds: float) -> None:
        self.limiter.throttled(429, {"retry-after": f"{seconds:.3f}"})
        self.gate = max(self.gate, self.clock.now + round(seconds, 3))
        self.learned = True

    @precondition(lambda self: self.open)
    @rule(data=st.data(), seconds=st.floats(0, 5))
    def the_provider_refuses_a_call(self, data: st.DataObject, seconds: float) -> None:
        call, charged = self._pick(data, self.open)
        assert call.held.throttled(429, {"retry-after": f"{seconds:.3f}"})
        self.gate = max(self.gate, self.clock.now + round(seconds, 3))
        self.learned = True
        charged.requests = 0.0
        self._refund(charged, 0)
        self.refused.append(call)
        self._run_all()

    @precondition(lambda self: self.refused)
    @rule(data=st.data())
    def a_refused_call_comes_again(self, data: st.DataObject) -> None:
        call = self._pick(data, self.refused)
        self.limiter._renew(call.held, again=True)
        self._enter(Call(call.held), call.held.timeout)
        self._run_all()

    # Invariants

    @invariant()
    def the_books_agree(self) -> None:
        stats = self.limiter.stats()
        assert (stats.waiting, stats.open) == (len(self.waiting), len(self.open))
        if self.windowed:
            assert stats.tokens_used <= TOKENS + CLOSE
            assert stats.requests_used <= REQUESTS + CLOSE
        if self.slots is not None:
            assert stats.gauges["concurrency"].used == len(self.open) <= self.slots

    @invariant()
    def no_window_holds_more_than_the_limit(self) -> None:
        if not self.windowed:
            return
        for end in [charged.at for charged in self.charged]:
            inside = [c for c in self.charged if end - self.window < c.at <= end]
            assert sum(c.tokens for c in inside) <= TOKENS + CLOSE
            assert sum(c.requests for c in inside) <= REQUESTS + CLOSE

    @invariant()
    def no_interval_holds_more_than_the_burst_and_the_rate(self) -> None:
        seconds = 2.0 if self.burst == "auto" else self.burst
        burst, rate = max(1.0, TOKENS / self.window * seconds), TOKENS / self.window * (1 + self.catch_up)
        flows = [(c.at, c.tokens + sum(amount for _, amount in c.refunds)) for c in self.charged]
        flows += [(at, -amount) for c in self.charged for at, amount in c.refunds]
        for start in {at for at, _ in flows}:
            net = sum(amount for at, amount in flows if at >= start)
            assert net <= burst + self.largest + rate * (self.latest - start) + CLOSE

    @invariant()
    def nobody_sleeps_while_the_head_fits(self) -> None:
        """Or hardly: what is caught up, or comes back after a refusal, comes a little before it was foreseen."""
        if not self.waiting or self.learned:
            return
        waiter = self.desk.line.head()
        [head] = [call for call in self.waiting if call.waiter is waiter]
        fits_in = self.desk.quota.wait(waiter.held.charge.amounts, self.clock.now)
        early = self.catch_up * (head.wakes - head.slept) if self.catch_up else 0.0
        assert fits_in > 0 or early > 0
        assert head.wakes <= self.elapsed + fits_in + early + CLOSE

    def teardown(self) -> None:
        """In the end everyone is admitted or refused, whatever came before."""
        for _ in range(10_000):
            if not self.waiting:
                break
            for call, _ in self.open[: len(self.open) if self.slots is not None else 0]:
                call.held.settle(None)
                self.open = [(other, charged) for other, charged in self.open if other is not call]
            self._run_all()
            first = min((call.wakes for call in self.waiting), default=self.elapsed)
            assert first < math.inf or self.open, "everybody sleeps and nobody will ever wake them"
            if first < math.inf:
                self._move(max(0.0, first - self.elapsed) + CLOSE)
            self._run_all()
        assert not self.waiting
        for call, _ in self.open:
            call.held.settle(None)
        assert self.limiter.stats().open == 0

    # The world

    def _pick(self, data: st.DataObject, among: list[Any]) -> Any:
        return among.pop(data.draw(st.integers(0, len(among) - 1)))

    def _move(self, seconds: float) -> None:
        self.elapsed += seconds
        self.clock.now += seconds
        self.latest = max(self.latest, self.clock.now)

    def _refund(self, charged: Charged, used: float) -> None:
        charged.refunds.append((self.latest, charged.tokens - used))
        charged.tokens = used

    def _cancel(self, call: Call) -> None:
        with pytest.raises(asyncio.CancelledError):
            call.flow.throw(asyncio.CancelledError())
        assert not call.held.charge.open

    def _enter(self, call: Call, timeout: float | None) -> None:
        if self.desk.enter_at_once(call.held.charge):
            self._admitted(call)
            return
        call.deadline = math.inf if timeout is None else self.clock.now + timeout
        call.flow = self.desk.queue_up(call.held)
        self.waiting.append(call)
        self._resume(call)

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
        except StopIteration:
            self._in_turn(call)
            self.waiting.remove(call)
            self._admitted(call)
        except LimitExceeded:
            self.waiting.remove(call)
        else:
            call.waiter = step.call.__self__
            [seconds] = step.args
            call.slept = self.elapsed
            call.wakes = self.elapsed + max(seconds, _SOONEST)
            up = call.waiter.admitted or self.desk.line.head() is call.waiter
            assert up or seconds >= min(_OVERDUE, call.deadline - self.clock.now) - CLOSE, "two mind the clock"

    def _woken(self, call: Call) -> Any:
        call.waiter._woken = False
        return call.flow.send(None)

    def _in_turn(self, call: Call) -> None:
        """Who came before and is of the same kind went before; who comes again went before everybody."""
        others = [other for other in self.waiting if other is not call and not other.waiter.admitted]
        again = [other for other in others if other.waiter.again]
        if call.held.since is not None:
            sooner = any(other.held.since < call.held.since for other in again)
            assert not sooner, "who comes again goes in the order of the first time"
        else:
            assert not again, "somebody comes again and waits"
            earlier = self.waiting[: self.waiting.index(call)]
            assert not any(other in others and other.kind == call.kind for other in earlier), (
                "first come, first served"
            )

    def _admitted(self, call: Call) -> None:
        charge = call.held.charge
        assert charge.at >= self.gate, "admitted while the provider refuses"
        charged = Charged(charge.at, call.held.cost.tokens)
        self.largest = max(self.largest, charged.tokens)
        self.charged.append(charged)
        self.open.append((call, charged))


class ThatCatchesUp(LimiterMachine):
    burst = "auto"


class OfAMinute(LimiterMachine):
    window = 60.0
    burst = "auto"


class OfABucket(LimiterMachine):
    profile = "bucket"


class OfABucketOfAMinute(LimiterMachine):
    profile = "bucket"
    window = 60.0


class WithSlots(LimiterMachine):
    slots = 3.0


TestAWindow = LimiterMachine.TestCase
TestAWindowThatCatchesUp = ThatCatchesUp.TestCase
TestAWindowOfAMinute = OfAMinute.TestCase
TestABucket = OfABucket.TestCase
TestABucketOfAMinute = OfABucketOfAMinute.TestCase
TestAWindowWithSlots = WithSlots.TestCase

TestAWindow.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAWindowThatCatchesUp.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAWindowOfAMinute.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestABucket.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestABucketOfAMinute.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAWindowWithSlots.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
