"""A limit per day, counted in bins of some minutes. Pure arithmetic; time is an argument, in seconds."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Mark, Plan

DAY = 86_400.0
_BIN = 300.0
_TINY = 1e-9
_GRAIN = 1.0


class DayGauge:
    """At most ``limit`` units in every span of a day and a bin.

    That holds wherever the provider's day begins. It is not paced: a day's quota may be used in an hour.
    """

    paced = False
    grain = _GRAIN
    __slots__ = ("_bins", "_parts", "index", "limit", "name", "used", "window")

    def __init__(self, name: str, limit: float, *, index: int) -> None:
        self.name, self.limit, self.window, self.index = name, limit, DAY, index
        self.used = 0.0
        self._parts = 1
        self._bins: deque[list[float]] = deque()

    def try_take(self, charge: Charge, amount: float, now: float) -> bool:
        if self.wait(amount, now) > 0.0:
            return False
        self.take(charge, amount)
        return True

    def undo(self, charge: Charge, amount: float) -> None:
        self._bins[-1][1] -= amount
        self.used -= amount

    def wait(self, amount: float, now: float, ahead: float = 0.0, noise: float = 0.0) -> float:
        self._refresh(now)
        excess = self.used + amount + ahead - self.limit / self._parts
        wait = 0.0
        if excess > _TINY:
            for start, held in self._bins:
                wait = start + _BIN + DAY - now
                excess -= held
                if excess <= _TINY:
                    break
            if ahead > 0.0 and excess > _TINY:
                wait += min(excess, ahead) / self.limit * DAY
        return max(0.0, wait)

    @property
    def share(self) -> float:
        """The part of the limit that is allowed, as learned."""
        return 1.0

    @property
    def mark(self) -> Mark:
        return self.used, 0.0

    def take(self, charge: Charge, amount: float) -> None:
        self._add(charge.at, amount)

    def room(self, now: float, noise: float) -> float:
        self._refresh(now)
        return self.limit / self._parts - self.used

    def absorb(self, charges: Sequence[Charge], amounts: Sequence[float], now: float) -> None:
        self._refresh(now)
        self._add(now, sum(amounts))

    def _add(self, at: float, amount: float) -> None:
        start = math.floor(at / _BIN) * _BIN
        if not self._bins or self._bins[-1][0] < start:
            self._bins.append([start, 0.0])
        self._bins[-1][1] += amount
        self.used += amount

    def give(self, charge: Charge, before: float, after: float) -> None:
        start = math.floor(charge.at / _BIN) * _BIN
        for held in reversed(self._bins):
            if held[0] <= start:
                if held[0] == start:
                    held[1] += after - before
                    self.used += after - before
                return

    def sync(self, reading: Reading, mark: Mark | None, now: float) -> None:
        """Headers speak of minutes."""

    def refuse(self, charge: Charge, pause: float, now: float) -> None:
        """The provider counts more than we know of; the pause it asks for is all there is to keep."""

    def divide(self, parts: int) -> None:
        self._parts = parts

    def plan(self, replicas: int) -> Plan:
        return Plan("day", self.limit, span=DAY)

    def _refresh(self, now: float) -> None:
        while self._bins and self._bins[0][0] + _BIN + DAY <= now + _TINY:
            self.used -= self._bins.popleft()[1]
        if not self._bins:
            self.used = 0.0
