"""A limit that refills continuously, mirrored from the provider's headers. Pure arithmetic; time is an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dispatch_core.limit.ceiling import Ceiling
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.mirror import Mirror
from dispatch_core.limit.quota import Charge, Mark, Plan

_TINY = 1e-9
# Four standard deviations of what is under way are kept free, two of the call itself.
_VARIANCES, _OWN = 16.0, 4.0
# Of what a server has more than we believed, half is taken at once: it may be on its way to others.
_CAUTION = 0.5
# A grain is the time in which this part of the bucket refills.
_GRAIN = 0.05


class BucketGauge:
    """The mirror of a server whose level refills continuously up to ``limit``.

    How full the server is nobody knows before its first headers: until then no more than ``burst`` units go at once.
    """

    paced = True
    __slots__ = (
        "_at", "_corrected", "_free", "_least_free", "_most", "_noise", "_others", "burst", "ceiling", "estimated",
        "full", "grain", "level", "limit", "name", "rate", "window",
    )  # fmt: skip

    def __init__(
        self, name: str, limit: float, *, window: float, burst: float, margin: float, estimated: bool = False
    ) -> None:
        self.name, self.limit, self.window = name, limit, window
        self.rate = limit / window
        self.burst = self.level = self.full = burst
        self.grain = burst / self.rate * _GRAIN
        self.estimated = estimated
        self.ceiling = Ceiling()
        self._least_free = margin
        self._free = 0.0
        self._others = Mirror()
        # What the server has left if it was full at first and nobody else uses it: no header makes it more.
        self._most = limit
        self._corrected = self._noise = 0.0
        self._at = -math.inf

    @property
    def used(self) -> float:
        return self.full - self.level

    @property
    def share(self) -> float:
        """The part of the limit that is allowed, as learned."""
        return self.ceiling.share

    @property
    def mark(self) -> Mark:
        return self.level, self._corrected

    def try_take(self, charge: Charge, amount: float, now: float) -> bool:
        if self.wait(amount, now, noise=charge.noise) > 0.0:
            return False
        self.take(charge, amount)
        return True

    def undo(self, charge: Charge, amount: float) -> None:
        self.level += amount
        self._most += amount
        self._noise -= charge.noise

    def wait(self, amount: float, now: float, ahead: float = 0.0, noise: float = 0.0) -> float:
        self._refresh(now)
        variance = _VARIANCES * self._noise + _OWN * noise if self.estimated else 0.0
        margin = math.sqrt(variance) if variance > 0.0 else 0.0
        lack = min(amount + margin + self._free, self.full) + ahead - self.level
        return lack / (self.rate * self.ceiling.share) if lack > _TINY else 0.0

    def take(self, charge: Charge, amount: float) -> None:
        self.level -= amount
        self._most -= amount
        self._noise += charge.noise

    def room(self, now: float, noise: float) -> float:
        self._refresh(now)
        margin = math.sqrt(max(0.0, _VARIANCES * (self._noise + noise))) if self.estimated else 0.0
        return self.level - margin - self._free

    def absorb(self, charges: Sequence[Charge], amounts: Sequence[float], now: float) -> None:
        """As if all had been charged at the end: never more is left than if each had been charged in its time."""
        self._refresh(now)
        total = sum(amounts)
        self.level -= total
        self._most -= total
        self._noise += sum([charge.noise for charge in charges])

    def give(self, charge: Charge, before: float, after: float) -> None:
        self._noise -= charge.noise
        self.level = min(self.full, self.level + before - after)
        self._most = min(self.limit, self._most + before - after)

    def forget(self, charges: Sequence[Charge]) -> None:
        # Who never settles shall not keep room free for ever.
        self._noise -= sum([charge.noise for charge in charges if charge.open])

    def empty(self) -> None:
        """Sums of floats drift."""
        self._noise = 0.0

    def sync(self, reading: Reading, mark: Mark | None, now: float) -> None:
        """Correct the level by what the server had more or less than we believed when it was asked.

        What was corrected since the call was sent is not corrected again (a Smith predictor). How wrong the beliefs
        use to be is left free.
        """
        per_minute = self.limit * 60.0 / self.window
        if reading.limit is None or not self.ceiling.tell(reading.limit, per_minute, self.window):
            return
        if reading.remaining is None or mark is None:
            return
        self._refresh(now)
        believed, corrected = mark
        error = believed - reading.remaining
        self._others.note(error, now)
        self._free = self._least_free + max(0.0, self._others.unseen)
        self.full = max(self.burst, min(self.limit, reading.limit))
        surplus = corrected - self._corrected - error
        self._correct(surplus if surplus < 0 else _CAUTION * surplus)

    def refuse(self, charge: Charge, pause: float, now: float) -> None:
        self._refresh(now)
        self.ceiling.refused(charge.at, now, None)
        self._correct(min(0.0, -self.rate * self.ceiling.share * pause - self.level))

    def divide(self, parts: int) -> None:
        """A mirrored level belongs to one process; what several share is counted by windows."""
        raise NotImplementedError

    def plan(self, replicas: int) -> Plan:
        return Plan("bucket", self.full, self.rate * self.ceiling.share, self.burst)

    def _correct(self, surplus: float) -> None:
        self._corrected += surplus
        self.level = min(self.full, self.level + surplus, self._most)

    def _refresh(self, now: float) -> None:
        at = self._at
        if now <= at:
            return
        self._at = now
        if at > -math.inf:
            if self.ceiling.share < 1.0:
                self.ceiling.refresh(now)
            level = self.level + (now - at) * self.rate * self.ceiling.share
            self.level = level if level < self.full else self.full
            self._most = min(self.limit, self._most + (now - at) * self.rate)
