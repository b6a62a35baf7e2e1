"""What a process knows of the others while their shared quota is away, and when it comes back. Pure; time is an
argument, in seconds."""

from __future__ import annotations

import math

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
# What it takes to tell, once a pause is over.
_TELLING = 0.5


class Outage:
    """Whether Redis is asked, and what it cannot know yet.

    Whoever loses it goes on alone, by his part of the limits, and tries again after a pause that doubles. Redis that
    answers again knows what this process tells it; what the others charged it hears when their pauses are over. Until
    then that much of the limits is theirs, and what the provider counts cannot be compared with what Redis counts.
    """

    __slots__ = ("_alone_until", "_began", "_comparable_from", "_forgot", "_known", "_pause", "_told_by", "_untold")

    def __init__(self, replicas: int) -> None:
        self._known = replicas
        self._pause = 0.0
        self._began = self._alone_until = self._told_by = self._comparable_from = -math.inf
        self._untold = 0.0
        self._forgot = False

    @property
    def replicas(self) -> int:
        """How many processes share the limits."""
        return self._known

    @property
    def lasts(self) -> bool:
        """Redis failed, and has not answered since."""
        return self._pause > 0

    def alone(self, now: float) -> bool:
        """Redis is not asked now."""
        return now < self._alone_until

    def left(self, now: float) -> float:
        """Seconds until Redis is asked again."""
        return max(0.0, self._alone_until - now)

    def close(self) -> None:
        """Redis is never asked again."""
        self._alone_until = math.inf

    def lost(self, now: float) -> bool:
        """Redis failed. True if that is news."""
        first = not self._pause
        if first:
            self._began = now
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        self._alone_until = max(self._alone_until, now + self._pause)
        return first

    def over(self, now: float, *, forgot: bool, window: float) -> bool:
        """Redis answers, and ``forgot`` what it knew or did not; it counts over so many seconds. True if it was
        lost."""
        recovered = self.lasts
        if recovered or forgot:
            # Lost once more before all had told.
            forgot = forgot or (self._forgot and now < self._told_by)
            # The others lost it when this process did, or a moment later; their pauses are one step ahead at most.
            self._told_by = now + min(_LONGEST_PAUSE, 2 * max(self._pause, _FIRST_PAUSE)) + _TELLING
            self._untold = min(1.0, (self._told_by - self._began) / window)
            self._forgot = forgot
            self._comparable_from = now + window
        self._pause = 0.0
        if self._alone_until < math.inf:
            self._alone_until = -math.inf
        return recovered

    def heard(self, replicas: int, now: float) -> None:
        """So many processes have asked Redis lately."""
        if now >= self._told_by or replicas > self._known:
            self._known = replicas

    def untold(self, seen: int, now: float) -> tuple[float, float]:
        """The share of what a window counts, and of the slots, that others may hold and Redis does not know of, when
        ``seen`` processes have asked it since."""
        if now >= self._told_by:
            return 0.0, 0.0
        if not self._forgot:
            return (1.0 - 1.0 / self._known) * self._untold, 0.0
        theirs = 1.0 - min(seen, self._known) / self._known
        return theirs, theirs

    def patience(self, wait: float, now: float) -> float:
        """When to look again, for whom Redis told to wait so long: perhaps only because others have not told yet."""
        return min(wait, self._told_by - now) if now < self._told_by else wait

    def comparable(self, now: float) -> bool:
        """Redis counts all that the processes have charged within a window."""
        return now >= self._comparable_from
