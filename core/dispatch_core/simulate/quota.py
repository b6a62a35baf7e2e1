"""The quota of a provider, as arithmetic: requests and tokens, three ways to count, time as an argument.

On arrival a request is charged one request and the tokens it reserves; when it is done the charge is
rewritten to what it really used (`Quota.settle`). A rejected request charges nothing (some providers do
count rejected requests; this one does not). An actual use above the reserved one may leave the quota
overdrawn: nothing is admitted until it has recovered.

Inside, time is whole microseconds and a bucket's level is whole units of 1/60,000,000 token, of which a rate
of R per minute refills exactly R every microsecond. No sum is ever rounded, so a request that arrives exactly
``retry_after`` seconds after its rejection is admitted if nothing else came in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from dispatch_core.errors import ConfigError

Style = Literal["sliding", "bucket", "fixed"]
Dimension = Literal["requests", "tokens"]

STYLES: tuple[Style, ...] = ("sliding", "bucket", "fixed")
MICROSECONDS = 1_000_000
UNITS = 60 * MICROSECONDS
"""Units in one request or token."""


@dataclass(eq=False, slots=True)
class Charge:
    """One entry in a gauge: when it was made (microseconds) and what it weighs now."""

    at: int
    amount: int


@dataclass(frozen=True, slots=True)
class Level:
    """Where one dimension stands: amounts per window, and seconds until nothing of it is used."""

    limit: int
    used: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Admission:
    """A request the quota let in; hand it to `Quota.settle` when the real number of tokens is known."""

    charges: Mapping[Dimension, Charge]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request the quota refused.

    ``retry_after`` is in seconds; None means that the request alone is larger than the limit.
    """

    dimension: Dimension
    limit: int
    used: int
    requested: int
    retry_after: float | None


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


_GAUGES: Mapping[Style, type[SlidingLog] | type[Bucket] | type[FixedWindow]] = {
    "sliding": SlidingLog,
    "bucket": Bucket,
    "fixed": FixedWindow,
}


class Quota:
    """Requests and tokens, admitted together or not at all. Not thread-safe: one thread owns it.

    ``rpm`` and ``tpm`` are per minute (None: unlimited) and counted over ``window`` seconds, so a window
    holds ``limit * window / 60`` of them. ``start`` is the instant (seconds) at which the first fixed
    window begins and a bucket is full. A clock that steps back is held still.

    Raises `ConfigError` when a window is too short to hold one request or one token.
    """

    def __init__(
        self,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        window: float = 60.0,
        style: Style = "sliding",
        start: float = 0.0,
    ) -> None:
        if style not in _GAUGES:
            raise ConfigError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
        span = round(window * MICROSECONDS)
        self._start = start
        self._now = 0
        self._gauges: dict[Dimension, Gauge] = {}
        limits: tuple[tuple[Dimension, int | None], ...] = (("requests", rpm), ("tokens", tpm))
        for dimension, limit in limits:
            if limit is None:
                continue
            if span <= 0 or limit * span < UNITS:
                raise ConfigError(f"{limit} {dimension} a minute leave less than one in {window} s")
            self._gauges[dimension] = _GAUGES[style](limit, span)

    def _tick(self, now: float) -> int:
        self._now = max(self._now, round((now - self._start) * MICROSECONDS))
        return self._now

    def admit(self, tokens: int, now: float) -> Admission | Rejection:
        """Charge one request and `tokens` at `now` (seconds), or say what refuses and for how long.

        When both refuse, the one that takes longer is named; one that can never fit goes before both.
        """
        at = self._tick(now)
        costs: dict[Dimension, int] = {"requests": 1, "tokens": tokens}
        refused: tuple[Dimension, int] | None = None
        for dimension, gauge in self._gauges.items():
            wait = gauge.wait(costs[dimension], at)
            if wait is None:
                return Rejection(dimension, gauge.limit, gauge.used(at), costs[dimension], None)
            if wait > (refused[1] if refused else 0):
                refused = (dimension, wait)
        if refused:
            dimension, wait = refused
            gauge = self._gauges[dimension]
            return Rejection(dimension, gauge.limit, gauge.used(at), costs[dimension], wait / MICROSECONDS)
        return Admission({name: gauge.charge(costs[name], at) for name, gauge in self._gauges.items()})

    def settle(self, admission: Admission, tokens: int, now: float) -> None:
        """Rewrite an admission to the `tokens` it really used. Doing so twice is the same as once."""
        charge = admission.charges.get("tokens")
        if charge is not None:
            self._gauges["tokens"].settle(charge, tokens, self._tick(now))

    def levels(self, now: float) -> dict[Dimension, Level]:
        """Where each limited dimension stands at `now` (seconds)."""
        at = self._tick(now)
        return {name: _level(gauge, at) for name, gauge in self._gauges.items()}


def _level(gauge: Gauge, at: int) -> Level:
    used = gauge.used(at)
    return Level(gauge.limit, used, max(0, gauge.limit - used), gauge.reset(at) / MICROSECONDS)
