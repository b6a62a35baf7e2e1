"""One call in a limiter's queue, and how to wake it."""

from __future__ import annotations

from dispatch_core._wake import Sleeper
from dispatch_core.limit.reservation import QuotaReservation


class Waiter(Sleeper):
    __slots__ = ("admitted", "again", "gone", "held", "key", "priority", "since", "size")

    def __init__(self, held: QuotaReservation, size: float) -> None:
        super().__init__()
        self.held = held
        self.size = size
        self.priority = held.priority
        self.key = held.key
        self.again = held.since is not None
        self.since: float = 0.0
        self.admitted = False
        self.gone = True
