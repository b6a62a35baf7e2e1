"""What becomes of an answer: those who wait for it get it, it is stored, and the policy learns from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dispatch_core._flow import Flow, run
from dispatch_core.cache import SemanticCache
from dispatch_core.failopen import FailOpen
from dispatch_core.flight import Shared, flight_key
from dispatch_core.flights import Flights
from dispatch_core.refresh import Refreshes
from dispatch_core.telemetry import Tally
from dispatch_core.ticket import Ticket
from dispatch_core.types import Entry, Miss, Usage
from dispatch_core.write_behind import WriteBehind


@dataclass(frozen=True, eq=False, slots=True)
class Keeping:
    """Keeps answers, in the background if there is a ``writer``. ``under_way`` are those, by id, whose write is not
    done: who comes after the flight and before its end finds them there."""

    tally: Tally
    failing: FailOpen
    learning: FailOpen
    flights: Flights
    refreshes: Refreshes
    writer: WriteBehind | None
    under_way: dict[str, Entry] = field(default_factory=dict)

    def keep(self, cache: SemanticCache, ticket: Ticket, miss: Miss, entry: Entry, usage: Usage | None) -> Flow[None]:
        """The ticket is let go when the answer is written, or cannot be."""
        self.under_way[entry.id] = entry
        self.flights.land(flight_key(miss), Shared(entry, 1.0, exact=True))
        writing = self._write(cache, ticket, miss, entry, usage)
        if self.writer is not None:
            self.writer.submit(lambda: run(writing))
        else:
            yield from writing

    def _write(
        self, cache: SemanticCache, ticket: Ticket, miss: Miss, entry: Entry, usage: Usage | None
    ) -> Flow[None]:
        written = None
        try:
            written = yield from self.failing.safely(cache.store_flow(miss, entry), None)
            yield from self._learn(cache, miss, entry)
            if written is not None and ticket.stale is not None:
                yield from self.failing.safely(cache.replace_flow(ticket.stale, entry), None)
        finally:
            self.tally.count("not_stored" if written is None else "stored", spent=usage)
            if self.under_way.get(entry.id) is entry:
                self.under_way.pop(entry.id, None)
            # Not before: who gets the lease next looks for the answer first.
            ticket.let_go(self.refreshes)

    def _learn(self, cache: SemanticCache, miss: Miss, entry: Entry) -> Flow[None]:
        """What an answer says of the one that would have been served."""
        right = yield from self.learning.safely(cache.learn_flow(miss, entry), None)
        if right is not None:
            self.tally.count("checked")
            self.tally.count("checked_wrong", not right)
