"""Circuit breaker: stop asking a part that keeps failing, and ask again after a while. Time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Opens after ``threshold`` failures in a row, for a pause that doubles from ``first`` to ``longest`` seconds.

    After the pause one caller at a time is let through to try. Failures of calls that began before it opened are old
    news: they do not prolong the pause.
    """

    threshold: int = 3
    first: float = 1.0
    longest: float = 30.0
    failures: int = 0
    blocked_until: float | None = None
    pause: float = 0.0
    trying: bool = False

    @property
    def is_open(self) -> bool:
        return self.blocked_until is not None

    def allow(self, now: float) -> bool:
        if self.blocked_until is None:
            return True
        if now < self.blocked_until:
            return False
        self.blocked_until = now + self.pause
        self.trying = True
        return True

    def success(self) -> bool:
        """Return True if this ended an outage."""
        recovered = self.is_open
        self.failures, self.blocked_until, self.pause, self.trying = 0, None, 0.0, False
        return recovered

    def failure(self, now: float) -> bool:
        """Return True if this opened the breaker."""
        self.failures += 1
        if self.failures < self.threshold or (self.is_open and not self.trying):
            return False
        opened = not self.is_open
        self.trying = False
        self.pause = min(self.longest, self.pause * 2 or self.first)
        self.blocked_until = now + self.pause
        return opened
