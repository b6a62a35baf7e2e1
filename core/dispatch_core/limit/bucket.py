"""Pure arithmetic of a quota; time is an argument, in seconds.

The *window profile* is safe towards any way of counting: in every span of ``window`` seconds at most the limit is
charged, and within it a pacing bucket spreads the charges, so that a burst never uses up the minute at its start.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# Floats round: whoever waited as long as `wait` said shall not be sent back for the last bit.
_TINY = 1e-9


@dataclass(slots=True)
class Charge:
    """What one call was charged, per dimension. ``settled`` once the real amounts are known."""

    at: float
    amounts: list[float]
    settled: bool = False
    live: bool = True


@dataclass(slots=True)
class Dimension:
    """One limit: ``limit`` units in ``window`` seconds, paced through a bucket of ``burst`` units."""

    name: str
    limit: float
    window: float
    burst: float
    used: float = 0.0
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.burst

    @property
    def rate(self) -> float:
        return self.limit / self.window

    def pace(self, amount: float) -> float:
        """Seconds until the bucket allows the amount. One above the burst is admitted as debt from a full bucket."""
        lack = min(amount, self.burst) - self.level
        return lack / self.rate if lack > _TINY else 0.0


class WindowQuota:
    """Requests and tokens over a sliding window, admitted together or not at all. Not thread-safe.

    ``pad`` seconds are added to the window, because the provider's clock starts when a request arrives, a little
    after ours. A clock that jumps back mints no credit.
    """

    def __init__(self, dimensions: Sequence[Dimension], *, window: float, pad: float) -> None:
        self.dimensions = list(dimensions)
        self._span = window + pad
        self._charges: deque[Charge] = deque()
        self._now = -math.inf

    def wait(self, amounts: Sequence[float], now: float) -> float:
        """Seconds until these amounts fit, if nothing else is charged meanwhile; inf if they never will."""
        now = self._advance(now)
        waits = [0.0]
        for index, (dimension, amount) in enumerate(zip(self.dimensions, amounts, strict=True)):
            waits.append(dimension.pace(amount))
            waits.append(self._until_expired(index, dimension.used + amount - dimension.limit, now))
        return max(waits)

    def charge(self, amounts: Sequence[float], now: float) -> Charge:
        now = self._advance(now)
        charge = Charge(now, list(amounts))
        self._charges.append(charge)
        for dimension, amount in zip(self.dimensions, amounts, strict=True):
            dimension.used += amount
            dimension.level -= amount
        return charge

    def settle(self, charge: Charge, amounts: Sequence[float] | None) -> None:
        """Rewrite a charge in place to what was really used; None keeps the estimate. Only the first call counts."""
        if charge.settled:
            return
        charge.settled = True
        if amounts is None:
            return
        for index, dimension in enumerate(self.dimensions):
            change = amounts[index] - charge.amounts[index]
            charge.amounts[index] = amounts[index]
            dimension.level = min(dimension.burst, dimension.level - change)
            if charge.live:
                dimension.used += change

    def _until_expired(self, index: int, excess: float, now: float) -> float:
        """Seconds until charges worth ``excess`` have left the window."""
        if excess <= _TINY:
            return 0.0
        for charge in self._charges:
            excess -= charge.amounts[index]
            if excess <= _TINY:
                return max(0.0, charge.at + self._span - now)
        return math.inf

    def _advance(self, now: float) -> float:
        if now <= self._now:
            return self._now
        if self._now > -math.inf:
            for dimension in self.dimensions:
                gained = (now - self._now) * dimension.rate
                dimension.level = min(dimension.burst, dimension.level + gained)
        self._now = now
        while self._charges and self._charges[0].at + self._span <= now + _TINY:
            expired = self._charges.popleft()
            expired.live = False
            for dimension, amount in zip(self.dimensions, expired.amounts, strict=True):
                dimension.used -= amount
        if not self._charges:
            for dimension in self.dimensions:
                # Sums of floats drift; an empty window is exactly empty.
                dimension.used = 0.0
        return now
