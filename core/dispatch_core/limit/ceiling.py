"""How much of a configured limit a provider really grants, learned from its refusals and its headers. Pure."""

from __future__ import annotations

import math

_FIRST_CUT, _CUT = 0.995, 0.97
_REPEATED, _MEMORY = 2.0, 60.0
_DEEPEST = 0.7
_LEAST = 0.01
_FAST, _SLOW, _SLOWEST = 1e-3, 1e-4, 5e-6
_NEAR = 0.97
_RAISED = 1.05
# Header limits count per minute, or per slice of ten seconds or of one. Which one is told by the size, as long as the
# configured limit is less than five times too high; anything else is another quota, and ignored.
_SLICES = (60.0, 10.0, 1.0)
_LOWEST_TOLD, _HIGHEST_TOLD = 0.2, 1.05


class Ceiling:
    """A share of the configured limit: cut when the provider refuses, recovered additively, capped by its headers.

    One cut per round trip: of calls that were under way together only the first refusal counts. A share that failed
    before is approached slowly, and each time it fails again at half the speed, so that a limit configured too high
    costs a refusal now and then instead of one a minute.
    """

    __slots__ = ("_at", "_cut_at", "_failed", "_refusals", "_slope", "_told", "share", "slice")

    def __init__(self) -> None:
        self.share = 1.0
        self.slice = math.inf
        self._told = 1.0
        self._failed = math.inf
        self._slope = _SLOW
        self._refusals = 0.0
        self._at = self._cut_at = -math.inf

    def refresh(self, now: float) -> None:
        """Recover what time allows."""
        if self.share >= self._told:
            self._at = now
            return
        gone = max(0.0, now - self._at)
        self._at = max(self._at, now)
        slope = _FAST if self.share < _NEAR * self._failed else self._slope
        self.share = min(self._told, self.share + gone * slope)

    def refused(self, sent: float, now: float, granted: float | None) -> bool:
        """A call sent at ``sent`` was refused; ``granted`` is the share that was measured to get through lately. True
        if that was the first refusal of a round trip."""
        if sent <= self._cut_at:
            return False
        self.refresh(now)
        if self.share > _NEAR * self._failed and math.isfinite(self._failed):
            self._slope = max(_SLOWEST, self._slope / 2)
        else:
            self._slope = _SLOW
        self._failed = self.share
        self._refusals = 1.0 + self._refusals * math.exp((self._cut_at - now) / _MEMORY)
        if self._refusals < _REPEATED:
            cut = _FIRST_CUT
        else:
            cut = _CUT if granted is None else min(_CUT, max(_DEEPEST, granted / self.share))
        self.share = max(_LEAST, self.share * cut)
        self._cut_at = self._at = now
        return True

    def tell(self, limit: float, configured: float, window: float = _SLICES[0]) -> bool:
        """A header named a limit; ``configured`` is the one of a minute. True if it is about a minute's quota,
        or of the ``window`` that the provider is said to count over: its ``remaining`` can be believed."""
        for seconds in (window, *_SLICES):
            share = limit * 60.0 / seconds / configured
            if _LOWEST_TOLD <= share <= _HIGHEST_TOLD:
                if share > _RAISED * self._told:
                    # Where it failed under the old limit says nothing about the new one.
                    self._failed = math.inf
                self._told = min(1.0, share)
                self.share = min(self.share, self._told)
                self.slice = min(self.slice, seconds)
                return seconds in (window, _SLICES[0])
        return False
