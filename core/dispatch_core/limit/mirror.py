"""What others use of a quota, read from the provider's headers. Pure arithmetic."""

from __future__ import annotations

import math

_GAIN = 0.05
_DEVIATIONS = 4.0


class Mirror:
    """A running mean and mean deviation of *what the server counts beyond what we know of*, in units of the quota.

    The estimate is the mean plus four deviations, as TCP sets its timers (Jacobson, Congestion Avoidance and Control,
    1988): it covers other tenants, and the noise of our own estimates, as far as the headers show them. ``memory``:
    seconds after which the past hardly counts, those over which the server counts.
    """

    __slots__ = ("_at", "_deviation", "_mean", "_memory", "_seen")

    def __init__(self, memory: float = 60.0) -> None:
        self._memory = memory
        self._mean = self._deviation = 0.0
        self._seen = 0
        self._at = -math.inf

    @property
    def unseen(self) -> float:
        """What to leave free for others."""
        return self._mean + _DEVIATIONS * self._deviation

    def note(self, surplus: float, now: float) -> None:
        """A header told it. The longer ago the last one, the less the past counts; news that others use less than
        believed is no reason for doubt."""
        self._seen += 1
        gain = max(_GAIN, 1.0 / self._seen, -math.expm1((self._at - now) / self._memory))
        self._at = now
        error = surplus - self._mean
        self._mean += gain * error
        if self._seen > 1:
            # One value deviates from nothing.
            surprise = error if error > 0.0 else min(-error, self._deviation)
            self._deviation += gain * (surprise - self._deviation)
