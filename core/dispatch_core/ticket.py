"""What one who was sent to the model holds, and what he has taken on before he is sent."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from dispatch_core.flight import FREED, Lead
from dispatch_core.flights import Seat
from dispatch_core.lease import Lease
from dispatch_core.ports import Reservation
from dispatch_core.refresh import Refreshes
from dispatch_core.types import Match, Miss, Query


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to call the model: what to store the answer with, and the place in the quota.

    ``stale`` is an old answer to the same question, which others are served meanwhile: better than an error.
    Others may be waiting for the answer: end every ticket with `Dispatcher.finish` or `Dispatcher.abort`. When the
    last copy of one is dropped without, its ``lead`` frees them.
    """

    query: Query
    miss: Miss | None
    reservation: Reservation | None = None
    lead: Lead | None = field(default=None, repr=False, compare=False)
    lease: Lease | None = field(default=None, repr=False, compare=False)
    stale: Match | None = None

    def reading(self) -> AbstractContextManager[None]:
        """To be around what the reader of a stream does with a piece of it. If that takes long, others no longer wait
        for the answer: the reader may be waiting for them."""
        return nullcontext() if self.lead is None else self.lead

    def let_go(self, refreshes: Refreshes) -> None:
        """The answer was written, or will not be."""
        if self.lease is not None:
            self.lease.end()
        if self.stale is not None:
            refreshes.end(self.stale.entry.id)


@dataclass(slots=True)
class Way:
    """What one who asks has taken on by now, to be given up if he does not get through."""

    seat: Seat
    lease: Lease | None = None
    stale: Match | None = None

    def give_up(self, refreshes: Refreshes) -> None:
        self.seat.lead.end(FREED)
        if self.lease is not None:
            self.lease.end()
        if self.stale is not None:
            refreshes.end(self.stale.entry.id)
