"""How one dimension of a quota is counted: four gauges, pure arithmetic, time as an argument.

Inside, time is whole microseconds and a bucket's level is whole units of 1/60,000,000 token, of which a rate
of R per minute refills exactly R every microsecond. No sum is ever rounded, so a request that arrives exactly
``retry_after`` seconds after its rejection is admitted if nothing else came in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

MICROSECONDS = 1_000_000
UNITS = 60 * MICROSECONDS
"""Units in one request or token."""


@dataclass(eq=False, slots=True)
class Charge:
    """One entry in a gauge: when it was made (microseconds) and what it weighs now."""

    at: int
    amount: int


class Gauge(Protocol):
    """One dimension under one style. Times are microseconds and never decrease from call to call."""

    limit: int

    def used(self, now: int) -> int: ...
    def wait(self, amount: int, now: int) -> int | None:
        """Microseconds until `amount` fits (0: now, None: never) if nothing else arrives."""

    def charge(self, amount: int, now: int) -> Charge: ...
    def settle(self, charge: Charge, actual: int, now: int) -> None: ...
    def reset(self, now: int) -> int:
        """Microseconds until nothing is used."""


class SlidingLog:
    """Every charge counts for one window from its own arrival: ``[at, at + window)``."""

    def __init__(self, per_minute: int, window: int) -> None:
        self.limit = per_minute * window // UNITS
        self._window = window
        self._log: deque[Charge] = deque()
        self._used = 0

    def used(self, now: int) -> int:
        while self._log and self._log[0].at + self._window <= now:
            self._used -= self._log.popleft().amount
        return self._used

    def wait(self, amount: int, now: int) -> int | None:
        if amount > self.limit:
            return None
        excess = self.used(now) + amount - self.limit
        if excess <= 0:
            return 0
        for charge in self._log:
            excess -= charge.amount
            if excess <= 0:
                return charge.at + self._window - now
        raise AssertionError("the log holds less than is used")

    def charge(self, amount: int, now: int) -> Charge:
        charge = Charge(now, amount)
        self._log.append(charge)
        self._used += amount
        return charge

    def settle(self, charge: Charge, actual: int, now: int) -> None:
        """Rewrites the charge at its own arrival; one that left the window already changes nothing."""
        self.used(now)
        if charge.at + self._window > now:
            self._used += actual - charge.amount
        charge.amount = actual

    def reset(self, now: int) -> int:
        return self._log[-1].at + self._window - now if self.used(now) else 0


class Bucket:
    """A level of at most one window's worth, refilled continuously; settling credits or debits it."""

    def __init__(self, per_minute: int, window: int) -> None:
        self.limit = per_minute * window // UNITS
        self._rate = per_minute
        self._capacity = per_minute * window
        self._level = self._capacity
        self._at = 0

    def _refill(self, now: int) -> int:
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return self._level

    def used(self, now: int) -> int:
        return -((self._refill(now) - self._capacity) // UNITS)

    def wait(self, amount: int, now: int) -> int | None:
        if amount > self.limit:
            return None
        missing = amount * UNITS - self._refill(now)
        return -(-missing // self._rate) if missing > 0 else 0

    def charge(self, amount: int, now: int) -> Charge:
        self._level = self._refill(now) - amount * UNITS
        return Charge(now, amount)

    def settle(self, charge: Charge, actual: int, now: int) -> None:
        self._level = min(self._capacity, self._refill(now) + (charge.amount - actual) * UNITS)
        charge.amount = actual

    def reset(self, now: int) -> int:
        return -((self._refill(now) - self._capacity) // self._rate)


class ShallowBucket(Bucket):
    """A bucket that lets a charge larger than itself in when it is full, as a debt that the refill pays."""

    def wait(self, amount: int, now: int) -> int | None:
        return super().wait(min(amount, self.limit), now)


class FixedWindow:
    """A counter that returns to zero at every multiple of the window."""

    def __init__(self, per_minute: int, window: int) -> None:
        self.limit = per_minute * window // UNITS
        self._window = window
        self._index = 0
        self._used = 0

    def used(self, now: int) -> int:
        if now // self._window != self._index:
            self._index, self._used = now // self._window, 0
        return self._used

    def wait(self, amount: int, now: int) -> int | None:
        if amount > self.limit:
            return None
        return 0 if self.used(now) + amount <= self.limit else self._window - now % self._window

    def charge(self, amount: int, now: int) -> Charge:
        self._used = self.used(now) + amount
        return Charge(now, amount)

    def settle(self, charge: Charge, actual: int, now: int) -> None:
        """Rewrites the charge while its window lasts; afterwards it changes nothing."""
        used = self.used(now)
        if charge.at // self._window == self._index:
            self._used = used + actual - charge.amount
        charge.amount = actual

    def reset(self, now: int) -> int:
        return self._window - now % self._window if self.used(now) else 0
