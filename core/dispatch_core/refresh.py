"""Stale while revalidate: who asks the model anew, while the others are served the old answer (RFC 5861)."""

from __future__ import annotations

from collections.abc import Callable

from dispatch_core._fork import renew_in_child


class Refreshes:
    """Which entries are being refreshed. One at a time asks for an entry; after ``timeout`` seconds, another may.

    Takes no lock, one step on a dict is one step. ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._until: dict[str, float] = {}
        renew_in_child(self)

    def __len__(self) -> int:
        return len(self._until)

    def start_anew(self) -> None:
        """What the parent refreshes comes back to the parent."""
        self._until = {}

    def take(self, id: str) -> bool:
        """Is it for this caller to refresh the entry?"""
        now = self._clock()
        mine = now + self._timeout
        until = self._until.setdefault(id, mine)
        if until is not mine and until <= now:
            self._until.pop(id, None)
            until = self._until.setdefault(id, mine)
        return until is mine

    def end(self, id: str) -> None:
        """It was refreshed, or will not be."""
        self._until.pop(id, None)
