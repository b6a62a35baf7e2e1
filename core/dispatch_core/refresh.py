"""Stale while revalidate: who asks the model anew, while the others are served the old answer (RFC 5861)."""

from __future__ import annotations

from collections.abc import Callable

from dispatch_core._fork import renew_in_child


class _Turn:
    """Of one who refreshes; when it is over, the first to claim it is its ``heir``."""

    __slots__ = ("heir", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.heir: dict[None, _Turn] = {}


class Refreshes:
    """Which entries are being refreshed. One at a time asks for an entry; after ``timeout`` seconds, another may.

    Takes no lock, one step on a dict is one step. ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._turns: dict[str, _Turn] = {}
        renew_in_child(self)

    def __len__(self) -> int:
        return len(self._turns)

    def start_anew(self) -> None:
        """What the parent refreshes comes back to the parent."""
        self._turns = {}

    def take(self, id: str) -> bool:
        """Is it for this caller to refresh the entry?"""
        now = self._clock()
        mine = _Turn(now + self._timeout)
        turn = self._turns.setdefault(id, mine)
        if turn is mine:
            return True
        if now < turn.until or turn.heir.setdefault(None, mine) is not mine:
            return False
        self._turns[id] = mine
        return True

    def end(self, id: str) -> None:
        """It was refreshed, or will not be."""
        self._turns.pop(id, None)
