"""Pure arithmetic of a quota; time is an argument, in seconds.

A quota is a row of gauges, one per limit, and a call is charged to all of them or to none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from dispatch_core.limit.headers import Reading

Kind: TypeAlias = Literal["window", "bucket", "slots", "day"]

_NEVER = -math.inf
# Room is promised for the noise of that many calls like the last one.
_ALIKE = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """One gauge as the caller wants it applied right now.

    ``capacity``: what a window may hold now, the full level of a bucket, the slots allowed, the limit of a day.
    ``rate``: units per second at which a window is paced or a bucket refills; 0 for the others. ``burst``: the size
    of a window's pacing bucket, the level at which a bucket begins. ``span``: seconds for which a window counts a
    charge, its pad included.
    """

    kind: Kind
    capacity: float
    rate: float = 0.0
    burst: float = 0.0
    span: float = 0.0


Mark: TypeAlias = tuple[float, float]
"""Where a gauge stood, and by how much it had been corrected then."""


class Charge:
    """What one call holds of every gauge: ``amounts`` since ``at``, as long as it is ``open``.

    ``noise`` is the variance of the estimated tokens. ``promise`` is the number of the promise it was charged to, 0
    if the gauges were asked. ``marks`` is where each gauge stood after the charge, noted once headers were seen to
    compare it with; ``lease`` is its name where several processes share the quota.
    """

    __slots__ = ("amounts", "at", "lease", "marks", "noise", "open", "promise")

    def __init__(self, amounts: Sequence[float], noise: float = 0.0) -> None:
        self.amounts = amounts
        self.noise = noise
        self.at = _NEVER
        self.open = False
        self.promise = 0
        self.marks: Sequence[Mark] = ()
        self.lease = ""


class Gauge(Protocol):
    """One limit of a quota. ``now`` never decreases from call to call; `Quota` sees to that.

    ``grain``: seconds for which it need not know what was charged to the room it promised.
    """

    name: str
    limit: float
    window: float
    paced: bool
    grain: float

    @property
    def used(self) -> float: ...

    def try_take(self, charge: Charge, amount: float, now: float) -> bool:
        """Charge the amount if it fits now; in doubt False, and `wait` decides."""
        ...

    def undo(self, charge: Charge, amount: float) -> None:
        """Take back a `try_take`: another limit has no room."""
        ...

    def wait(self, amount: float, now: float, ahead: float = 0.0, noise: float = 0.0) -> float:
        """Seconds until the amount fits behind what is ``ahead``, if nothing else happens; inf if only a settled call
        can make room. ``noise`` is the variance of the amount."""
        ...

    @property
    def share(self) -> float:
        """The part of the limit that is allowed, as learned."""
        ...

    @property
    def mark(self) -> Mark:
        """Where the gauge stands, for `sync`."""
        ...

    def take(self, charge: Charge, amount: float) -> None:
        """Charge the amount, right after `wait`."""
        ...

    def room(self, now: float, noise: float) -> float:
        """What it can take without being asked again, of charges whose variances add up to ``noise``. Time, and calls
        that end, only add to that."""
        ...

    def absorb(self, charges: Sequence[Charge], amounts: Sequence[float], now: float) -> None:
        """These were charged since, the last of them now, to what `room` had promised."""
        ...

    def give(self, charge: Charge, before: float, after: float) -> None:
        """A charge ends and becomes ``after``."""
        ...

    def sync(self, reading: Reading, mark: Mark | None, now: float) -> None:
        """The provider told where it stood when the call with this mark arrived; without a mark it told its limit."""
        ...

    def refuse(self, charge: Charge, pause: float, now: float) -> None:
        """The provider refused a call for this limit and wants a pause of so many seconds."""
        ...

    def divide(self, parts: int) -> None:
        """Allow one of so many equal parts of the limit; 1 is all of it."""
        ...

    def plan(self, replicas: int) -> Plan:
        """What to apply for all, if as many processes as these do what this one does."""
        ...


class Record(Protocol):
    """What the gauges share: the charges that still count."""

    charges: deque[Charge]

    def refresh(self, now: float) -> None: ...


class Quota:
    """All limits of a provider, admitted together or not at all. Not thread-safe.

    A clock that jumps back is held still and mints no credit.

    Calls that come in quick succession are charged to a *promise*: the gauges say once what they can take for sure,
    that is spent by plain subtraction, and they absorb it in one piece before they are looked at again. What refills
    or is given back meanwhile may be lost to a full bucket, at most as much as was charged to the promise; while
    anybody waits there is none.
    """

    def __init__(self, gauges: Sequence[Gauge], record: Record) -> None:
        self._gauges = tuple(gauges)
        self._indices = range(len(self._gauges))
        self.record = record
        self._now = _NEVER
        self._gate = _NEVER
        self._told = False
        # The promise: it holds until then, for these amounts and that noise, and was given to these charges.
        self._until = _NEVER
        self._room: list[float] = []
        self._noise = 0.0
        self._promised: list[Charge] = []
        self._promise = 1
        self._grain = min((gauge.grain for gauge in gauges), default=0.0)

    @property
    def gauges(self) -> tuple[Gauge, ...]:
        """The gauges as they are now."""
        self.absorb()
        return self._gauges

    def wait(self, amounts: Sequence[float], now: float, noise: float = 0.0) -> float:
        """Seconds until these amounts fit, if nothing else is charged meanwhile."""
        now = self._advance(now)
        wait = max(0.0, self._gate - now)
        for gauge, amount in zip(self._gauges, amounts, strict=True):
            wait = max(wait, gauge.wait(amount, now, noise=noise))
        return wait

    def wait_behind(self, amounts: Sequence[float], ahead: Sequence[float], now: float) -> float:
        """Seconds until these amounts fit behind those ahead of them."""
        now = self._advance(now)
        wait = max(0.0, self._gate - now)
        for gauge, amount, before in zip(self._gauges, amounts, ahead, strict=True):
            wait = max(wait, gauge.wait(amount, now, before))
        return wait

    def wait_paced(self, ahead: Sequence[float], now: float) -> float:
        """About how long it takes until these amounts have been admitted, in few steps."""
        paced = (amount * gauge.window / gauge.limit for gauge, amount in zip(self._gauges, ahead, strict=True))
        return max(0.0, self._gate - now, *paced)

    def try_charge(self, charge: Charge, now: float) -> bool:
        """Charge at once if there is plenty of room: the common case in few steps, and without asking the gauges as
        long as they promised enough."""
        if self._now <= now < self._until or self._promised_anew(charge, now):
            room, amounts = self._room, charge.amounts
            for index in self._indices:
                left = room[index] - amounts[index]
                if left < 0.0:
                    # Whoever does not fit ends the promise.
                    return self._try_asking(charge, now)
                room[index] = left
            if charge.noise:
                self._noise -= charge.noise
                if self._noise < 0.0:
                    return self._try_asking(charge, now)
            self._now = charge.at = now
            charge.open, charge.promise = True, self._promise
            self._promised.append(charge)
            self.record.charges.append(charge)
            return True
        return self._try_asking(charge, now)

    def _promised_anew(self, charge: Charge, now: float) -> bool:
        """Ask the gauges for a promise, if calls come in quick succession."""
        if not self._now <= now < self._now + self._grain or now < self._gate or self._told:
            return False
        self._advance(now)
        gauges = self._gauges
        self._noise = noise = _ALIKE * charge.noise
        self._room = [gauge.room(now, noise) for gauge in gauges]
        self._grain = min([gauge.grain for gauge in gauges])
        self._until = now + self._grain
        return True

    def _try_asking(self, charge: Charge, now: float) -> bool:
        if now < self._gate or now < self._now:
            return False
        charge.at = self._advance(now)
        amounts = charge.amounts
        for index, gauge in enumerate(self._gauges):
            if not gauge.try_take(charge, amounts[index], now):
                self._undo(charge, index)
                return False
        self._enter(charge)
        return True

    def _undo(self, charge: Charge, done: int) -> None:
        for gauge, amount in zip(self._gauges[:done], charge.amounts, strict=False):
            gauge.undo(charge, amount)
        charge.at = _NEVER

    def charge(self, charge: Charge, now: float) -> None:
        """Charge, whether or not it fits."""
        now = self._advance(now)
        for gauge, amount in zip(self._gauges, charge.amounts, strict=True):
            gauge.wait(amount, now)
        charge.at = now
        for gauge, amount in zip(self._gauges, charge.amounts, strict=True):
            gauge.take(charge, amount)
        self._enter(charge)

    def _enter(self, charge: Charge) -> None:
        charge.open, charge.promise = True, 0
        if self._told:
            charge.marks = [gauge.mark for gauge in self._gauges]
        self.record.charges.append(charge)

    def absorb(self) -> None:
        """The promise is over: have the gauges note what was charged to it."""
        self._until = _NEVER
        charges = self._promised
        if charges:
            self._promised = []
            self._promise += 1
            columns = zip(*[charge.amounts for charge in charges], strict=True)
            for gauge, amounts in zip(self._gauges, columns, strict=True):
                gauge.absorb(charges, amounts, self._now)

    def _advance(self, now: float) -> float:
        if self._until > _NEVER:
            self.absorb()
        self._now = max(self._now, now)
        self.record.refresh(self._now)
        return self._now

    def settle(self, charge: Charge, amounts: Sequence[float] | None) -> bool:
        """Rewrite a charge in place to what was really used; None keeps the estimate. Only the first call counts; the
        others are told False."""
        if not charge.open:
            return False
        before = charge.amounts
        if amounts is None:
            amounts = before
        for index in self._indices:
            if amounts[index] > before[index]:
                # What was promised to others may not be there any more.
                self.absorb()
                break
        charge.open = False
        if charge.promise == self._promise:
            # The gauges have not noted it yet.
            charge.noise = 0.0
        else:
            for gauge, old, new in zip(self._gauges, before, amounts, strict=False):
                gauge.give(charge, old, new)
        charge.amounts = amounts
        return True

    def hold(self, until: float, now: float) -> None:
        """Nobody goes before that time."""
        # What was promised was promised for now.
        self._advance(now)
        self._gate = max(self._gate, until)

    def divide(self, parts: int) -> None:
        for gauge in self.gauges:
            gauge.divide(parts)

    def plans(self, replicas: int) -> tuple[Plan, ...]:
        return tuple(gauge.plan(replicas) for gauge in self.gauges)

    def sync(self, readings: Mapping[str, Reading], charge: Charge, now: float) -> None:
        """Learn from the headers of the response to the call of this charge."""
        self._told = True
        now = self._advance(now)
        marks: Sequence[Mark | None] = charge.marks or [None] * len(self._gauges)
        for gauge, mark in zip(self._gauges, marks, strict=True):
            reading = readings.get(gauge.name)
            if reading is not None:
                gauge.sync(reading, mark, now)

    def refuse(
        self,
        charge: Charge,
        dimension: str | None,
        readings: Mapping[str, Reading],
        pause: float,
        now: float,
    ) -> None:
        """The provider refused the call of this charge: nobody goes before the pause is over.

        The limit to blame is the one it named, or those that its headers show to be used up, or else the fullest; if
        it named one that we do not know of, none.
        """
        now = self._advance(now)
        self._gate = max(self._gate, now + pause)
        blamed = [gauge for gauge in self.gauges if gauge.name == dimension]
        for index, gauge in enumerate(() if blamed else self.gauges):
            left = readings[gauge.name].remaining if gauge.name in readings else None
            asked = charge.amounts[index] if charge.amounts else 1.0
            if left is not None and left < asked:
                blamed.append(gauge)
        if not blamed and dimension is None:
            # A day is long and slots are few: neither is full by accident, and a pause mends neither.
            rates = [gauge for gauge in self.gauges if gauge.paced] or self.gauges
            blamed = [max(rates, key=lambda gauge: gauge.used / gauge.limit)]
        for gauge in blamed:
            gauge.refuse(charge, pause, now)
