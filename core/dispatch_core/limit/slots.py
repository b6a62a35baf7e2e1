"""A limit on calls under way at once, which adapts to how fast the provider answers. Pure; time is an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Mark, Plan

Pace = Literal["first_token", "per_token"]

_TOLERANCE = 1.5
_SHORT, _LONG = 0.2, 0.01
_STEEPEST = 0.5
_SMOOTH = 0.2
_DROP = 0.9
_GRAIN = 0.1
# Seconds that a call takes, for an idea of how long a line will take.
_TYPICAL = 10.0


class SlotGauge:
    """At most ``limit`` calls under way, fewer while the provider is slow.

    How slow is the *time to the first token*, or the seconds per token where nobody measured that; never the whole
    duration, which follows the length of the answer. The recent average over the long one is the gradient (Netflix's
    concurrency-limits, Gradient2): a provider that slows down is given fewer calls at once, one that keeps its pace
    the square root of the limit more each time. A refusal takes a tenth, once per round trip.
    """

    paced = False
    grain = _GRAIN
    __slots__ = ("_cut_at", "_long", "_parts", "_short", "allowed", "limit", "name", "used", "window")

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit, self.window = name, limit, _TYPICAL
        self.used = 0.0
        self._parts = 1
        self.allowed = limit
        self._cut_at = -math.inf
        self._short: dict[Pace, float] = {}
        self._long: dict[Pace, float] = {}

    def try_take(self, charge: Charge, amount: float, now: float) -> bool:
        if self.wait(amount, now) > 0.0:
            return False
        self.take(charge, amount)
        return True

    def undo(self, charge: Charge, amount: float) -> None:
        self.used -= amount

    def wait(self, amount: float, now: float, ahead: float = 0.0, noise: float = 0.0) -> float:
        return 0.0 if self.used + amount <= self._granted() else math.inf

    @property
    def share(self) -> float:
        """The part of the limit that is allowed, as learned."""
        return self.allowed / self.limit

    @property
    def mark(self) -> Mark:
        return self.used, 0.0

    def take(self, charge: Charge, amount: float) -> None:
        self.used += amount

    def room(self, now: float, noise: float) -> float:
        return self._granted() - self.used

    def absorb(self, charges: Sequence[Charge], amounts: Sequence[float], now: float) -> None:
        """Those that have ended meanwhile hold nothing."""
        self.used += sum([amount for charge, amount in zip(charges, amounts, strict=True) if charge.open])

    def give(self, charge: Charge, before: float, after: float) -> None:
        """A slot is free when its call is over, whatever it cost."""
        self.used = max(0.0, self.used - before)

    def sync(self, reading: Reading, mark: Mark | None, now: float) -> None:
        """No header speaks of slots."""

    def refuse(self, charge: Charge, pause: float, now: float) -> None:
        if charge.at > self._cut_at:
            self.allowed = max(1.0, min(self.allowed, self.used) * _DROP)
            self._cut_at = now

    def divide(self, parts: int) -> None:
        self._parts = parts

    def plan(self, replicas: int) -> Plan:
        return Plan("slots", max(1.0, math.floor(self.allowed)))

    def pace(self, kind: Pace, seconds: float) -> None:
        """A call was answered, with so many seconds to its first token or per token."""
        if not 0.0 < seconds < math.inf:
            return
        short = self._short[kind] = _average(self._short.get(kind), seconds, _SHORT)
        long = self._long[kind] = min(_average(self._long.get(kind), seconds, _LONG), short * _TOLERANCE)
        gradient = max(_STEEPEST, min(1.0, _TOLERANCE * long / short))
        if self.used < self.allowed / 2 and gradient >= 1.0:
            return
        aim = self.allowed * gradient + math.sqrt(self.allowed)
        self.allowed = max(1.0, min(self.limit, (1 - _SMOOTH) * self.allowed + _SMOOTH * aim))

    def _granted(self) -> float:
        return max(1.0, self.allowed // self._parts)


def _average(before: float | None, value: float, gain: float) -> float:
    return value if before is None else before + gain * (value - before)
