"""A limit counted over a sliding window and paced within it. Pure arithmetic; time is an argument, in seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from dispatch_core.limit.ceiling import Ceiling
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.mirror import Mirror
from dispatch_core.limit.quota import Charge, Mark, Plan

# Floats round: whoever waited as long as `wait` said shall not be sent back for the last bit.
_TINY = 1e-9
# Four standard deviations of what is under way are kept free, two of the call itself.
_VARIANCES, _OWN = 16.0, 4.0
_MEASURED = 10.0
_IN_FLIGHT = 2.0
_CATCH_UP = 4.0
_OF_SLICE = 0.6
_LEAST_PACE = 0.01
_PLAN_STEPS = 500
_BELIEVED = 300.0
_FIRST_UPSET, _LONGEST_UPSET = 30.0, 1800.0
# A grain is the time in which this part of the bucket refills.
_GRAIN = 0.05


class Remembering(Protocol):
    """A gauge that holds something of a charge for as long as the log does."""

    def forget(self, charges: Sequence[Charge]) -> None: ...
    def empty(self) -> None: ...


class Log:
    """The charges of the last ``span`` seconds, for all gauges of one window.

    The window is longer than the provider's by a pad, because its clock starts when a request arrives, a little after
    ours. ``forgotten``: what was charged at this instant or before is gone.
    """

    __slots__ = ("charges", "forgotten", "gauges", "span")

    def __init__(self, span: float) -> None:
        self.span = span
        self.charges: deque[Charge] = deque()
        self.gauges: tuple[Remembering, ...] = ()
        self.forgotten = -math.inf

    def refresh(self, now: float) -> None:
        """Forget the charges that are over."""
        charges, until = self.charges, now - self.span + _TINY
        if until <= self.forgotten:
            return
        self.forgotten = until
        over = []
        while charges and charges[0].at <= until:
            over.append(charges.popleft())
        if not over:
            return
        for gauge in self.gauges:
            gauge.forget(over)
        for charge in over:
            charge.noise = 0.0
        if not charges:
            for gauge in self.gauges:
                gauge.empty()


class WindowGauge:
    """At most ``limit`` units in every span of ``window`` seconds, spread by a pacing bucket of ``burst`` units.

    That is safe towards any way of counting. ``index`` is the gauge's place in a charge's amounts. What is left free:
    four standard deviations of what the calls under way may cost more than estimated or, if that is more, what others
    were seen to use.
    """

    paced = True
    __slots__ = (
        "_at", "_believed_until", "_burst", "_calm", "_cap", "_log", "_noise", "_pace", "_parts", "_unseen",
        "_upset", "burst", "catch_up", "ceiling", "configured", "estimated", "grain", "index", "level", "limit",
        "mirror", "name", "rate", "used", "window",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        limit: float,
        *,
        window: float,
        log: Log,
        burst: float,
        index: int,
        catch_up: float = 0.0,
        estimated: bool = False,
        configured: float | None = None,
    ) -> None:
        self.name, self.limit, self.window, self.index = name, limit, window, index
        self.rate = self._pace = limit / window
        self.burst = self.level = self._burst = burst
        self.grain = burst / self.rate * _GRAIN
        self.configured = limit if configured is None else configured
        self.catch_up = catch_up
        self.estimated = estimated
        self.used = 0.0
        self.ceiling = Ceiling()
        self.mirror = Mirror(window)
        self._cap = limit
        self._parts = 1
        self._noise = self._unseen = 0.0
        self._believed_until = -math.inf
        self._calm, self._upset = -math.inf, _FIRST_UPSET
        self._log = log
        self._at = -math.inf
        log.gauges += (self,)

    @property
    def capacity(self) -> float:
        """What the window may hold: the limit, less what was learned, less what is left free for errors."""
        return self._capacity(0.0)

    def _capacity(self, noise: float) -> float:
        margin = math.sqrt(max(0.0, self._noise + _OWN * noise)) if self.estimated else 0.0
        return self._cap - max(self._unseen, margin)

    def try_take(self, charge: Charge, amount: float, now: float) -> bool:
        """Charge the amount if it fits, in few steps; False may be wrong when nearly all is used."""
        level, burst = self.level, self.burst
        if level < burst:
            level += (now - self._at) * self._pace
            level = self._refill(now) if level < burst else burst
        self._at = now
        used = self.used + amount
        free = self._cap - used
        if (level < amount and level < burst) or free < self._unseen:
            self.level = level
            return False
        if self.estimated:
            noise = charge.noise
            if free * free < self._noise + _OWN * noise:
                self.level = level
                return False
            self._noise += _VARIANCES * noise
        self.level = level - amount
        self.used = used
        return True

    def undo(self, charge: Charge, amount: float) -> None:
        self.level += amount
        self.used -= amount
        if charge.noise and self.estimated:
            self._noise -= _VARIANCES * charge.noise

    def wait(self, amount: float, now: float, ahead: float = 0.0, noise: float = 0.0) -> float:
        level = self._refill(now)
        self._at = now
        lack = min(amount, self.burst) + ahead - level
        wait = lack / self._pace if lack > _TINY else 0.0
        excess = amount + ahead + self.used - self._capacity(noise)
        return max(wait, self._until_expired(excess, ahead, now)) if excess > _TINY else wait

    @property
    def share(self) -> float:
        """The part of the limit that is allowed, as learned."""
        return self.ceiling.share

    @property
    def mark(self) -> Mark:
        return self.used, 0.0

    def take(self, charge: Charge, amount: float) -> None:
        self.level -= amount
        self.used += amount
        if charge.noise and self.estimated:
            self._noise += _VARIANCES * charge.noise

    def room(self, now: float, noise: float) -> float:
        level = self._refill(now)
        self._at = now
        noise = self._noise + _VARIANCES * noise if self.estimated else 0.0
        margin = math.sqrt(noise) if noise > 0.0 else 0.0
        free = self._cap - self.used - (margin if margin > self._unseen else self._unseen)
        return level if level < free else free

    def absorb(self, charges: Sequence[Charge], amounts: Sequence[float], now: float) -> None:
        """As if all had been charged at the end: never more is left than if each had been charged in its time."""
        total = sum(amounts)
        self.used += total
        self.level = self._refill(now) - total
        self._at = now
        if self.estimated:
            self._noise += _VARIANCES * sum([charge.noise for charge in charges])

    def give(self, charge: Charge, before: float, after: float) -> None:
        if charge.noise and self.estimated:
            self._noise -= _VARIANCES * charge.noise
        if before != after:
            level = self.level + before - after
            self.level = level if level < self.burst else self.burst
            if charge.at > self._log.forgotten:
                self.used += after - before

    def forget(self, charges: Sequence[Charge]) -> None:
        index, used = self.index, self.used
        for charge in charges:
            used -= charge.amounts[index]
            if charge.noise and charge.open and self.estimated:
                # Who never settles shall not keep room free for ever.
                self._noise -= _VARIANCES * charge.noise
        self.used = used

    def empty(self) -> None:
        """Sums of floats drift; an empty window is exactly empty."""
        self.used = self._noise = 0.0

    def sync(self, reading: Reading, mark: Mark | None, now: float) -> None:
        believed = reading.limit is not None and self.ceiling.tell(
            reading.limit, self.configured * 60.0 / self.window, self.window
        )
        if self.ceiling.slice < self.window:
            # A server that counts short slices grants no more than a part of one at once.
            self._burst = min(self._burst, max(1.0, _OF_SLICE * self.ceiling.slice * self.rate))
            self.catch_up = 0.0
        if believed and mark is not None and reading.limit is not None and reading.remaining is not None:
            # Negative where the server counts less than we do, as one does that begins anew with every minute.
            self.mirror.note(max(0.0, reading.limit - reading.remaining - mark[0]), now)
            self._unseen = self.mirror.unseen
            self._believed_until = now + _BELIEVED
        self._apply()

    def refuse(self, charge: Charge, pause: float, now: float) -> None:
        if self.ceiling.refused(charge.at, now, self._granted(now)):
            quiet = now - self._calm > _LONGEST_UPSET
            self._upset = _FIRST_UPSET if quiet else min(_LONGEST_UPSET, 2 * self._upset)
            self._calm = now + self._upset
        self._apply()
        self.level = min(self.level, -self._pace * pause)

    def divide(self, parts: int) -> None:
        self._parts = parts
        self._apply()

    def plan(self, replicas: int) -> Plan:
        margin = max(self._unseen, math.sqrt(max(0.0, self._noise * replicas)))
        # In steps, so that most calls have the same plan.
        steps = math.ceil(margin / self.limit * _PLAN_STEPS) / _PLAN_STEPS
        capacity = max(0.0, self._cap - steps * self.limit)
        return Plan("window", capacity, self._pace, self.burst, self._log.span)

    def _apply(self) -> None:
        share = self.ceiling.share / self._parts
        full = self.level >= self.burst - _TINY
        self._cap, self.burst = self.limit * share, max(1.0, self._burst * share)
        # A pace above what the window takes in, less what others use of it, would stop and go every minute.
        self._pace = max(_LEAST_PACE * self.limit, self._cap - self._unseen) / self.window
        self.grain = self.burst / self._pace * _GRAIN
        # A full bucket that grows stays full: whoever was told to wait for that shall not chase it.
        self.level = self.burst if full else min(self.level, self.burst)

    def _granted(self, now: float) -> float | None:
        """The share of the limit that got through lately; None before ten seconds of work were seen."""
        until = now - _IN_FLIGHT
        since = until - min(_MEASURED, self.window / 4)
        charges = self._log.charges
        if not charges or charges[0].at > since:
            return None
        recent = sum(charge.amounts[self.index] for charge in charges if since < charge.at <= until)
        return max(recent / (until - since) / self.rate, 0.0)

    def _until_expired(self, excess: float, ahead: float, now: float) -> float:
        """Seconds until charges worth ``excess`` have left the window. A call within the limit is let into an empty
        one, however much of it is kept free."""
        wait = 0.0
        for charge in self._log.charges:
            excess -= charge.amounts[self.index]
            wait = charge.at + self._log.span - now
            if excess <= _TINY:
                break
        if ahead > 0.0 and excess > _TINY:
            wait += min(excess, ahead) / self._pace
        return max(0.0, wait)

    def _refill(self, now: float) -> float:
        if self._unseen and now > self._believed_until:
            # No header has spoken of this limit for long: what others use of it nobody knows any more.
            self.mirror, self._unseen = Mirror(self.window), 0.0
            self._apply()
        if self.ceiling.share < 1.0:
            self.ceiling.refresh(now)
            self._apply()
        level = self.level
        if level < self.burst:
            level += (now - self._at) * self._pace
            if level < self.burst and self.catch_up:
                level += (now - self._at) * self._extra(now)
            if level > self.burst - _TINY:
                level = self.burst
            self.level = level
        return level

    def _extra(self, now: float) -> float:
        """Units per second on top of the limit's rate, as long as capacity was lost in the window."""
        charges = self._log.charges
        if not charges or now <= self._calm:
            return 0.0
        lost = (min(now - charges[0].at, self.window) * self._pace - self.used) / self.limit
        return self._pace * min(self.catch_up, max(0.0, _CATCH_UP * lost))
