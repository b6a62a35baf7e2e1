"""The way to an answer that need not be asked for: it is stored, or under way here or in another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dispatch_core._flow import Flow
from dispatch_core.cache import REJECTED, STALE, SemanticCache
from dispatch_core.consensus import CONTESTED
from dispatch_core.failopen import FailOpen
from dispatch_core.flight import Shared
from dispatch_core.flights import Flights, Seat
from dispatch_core.keeping import Keeping
from dispatch_core.lease import Lease, Leases
from dispatch_core.refresh import Refreshes
from dispatch_core.ticket import Way
from dispatch_core.types import Entry, Match, Miss, Vector

_ALONE = (REJECTED, CONTESTED)
"""What was stored speaks against the likes of such a question, and so against an answer to one that is under way."""


@dataclass(frozen=True, eq=False, slots=True)
class Seeking:
    """Looks for answers together with all who ask the same. ``clock`` returns monotonic seconds."""

    failing: FailOpen
    flights: Flights
    refreshes: Refreshes
    leases: Leases | None
    keeping: Keeping
    clock: Callable[[], float]

    def seek(self, cache: SemanticCache, unseen: Miss, way: Way) -> Flow[Match | Miss]:
        """An answer, or a miss for who must ask the model; what he has taken on by then is noted in ``way``."""
        found = way.seat.found or (yield from self._lookup(cache, unseen))
        if isinstance(found, Match) and cache.stale(found.entry) and self.refreshes.take(found.entry.id):
            # Who waits is served what is there.
            way.seat.lead.end(found)
            way.stale, way.seat = found, self.flights.alone(way.seat.patience)
            found = replace(unseen, reason=STALE)
        elif isinstance(found, Miss) and found.vector is not None and found.reason not in _ALONE:
            way.seat = yield from self._near(cache, found, found.vector, way.seat)
            found = way.seat.found or found
        if isinstance(found, Miss) and self.leases is not None:
            way.seat, way.lease = yield from self._in_turn(cache, self.leases, found, way.seat)
            found = way.seat.found or found
        if isinstance(found, Match) and not found.hit_id:
            return cache.retractable(found, unseen)
        return found

    def _lookup(self, cache: SemanticCache, unseen: Miss) -> Flow[Match | Miss]:
        entry = self.keeping.under_way.get(unseen.id)
        if entry is not None and cache.fresh(entry) and not cache.shadow:
            return Match(entry, 1.0, exact=True)
        return (yield from self.failing.safely(cache.lookup_flow(unseen), unseen))

    def _near(self, cache: SemanticCache, miss: Miss, vector: Vector, seat: Seat) -> Flow[Seat]:
        """Wait for the answer to the same question in other words, if it is under way."""
        failing = self.failing

        def same(question: Entry, score: float) -> bool:
            try:
                return cache.policy.decide(miss.query.text, [Match(question, score)]).hit is not None
            except Exception as error:
                failing.failed(error)
                if not failing.enabled:
                    raise
                return False

        # Its answer is not known yet, and so not the same as any other.
        question = cache.entry(miss, miss.id.encode(), None)
        return (yield from self.flights.join_near(seat, question, vector, same, cache.policy.neighbours))

    def _in_turn(
        self, cache: SemanticCache, leases: Leases, miss: Miss, seat: Seat
    ) -> Flow[tuple[Seat, Lease | None]]:
        """Take the question's lease, or wait for the answer of the process that has it. Without a store that works,
        or when the time is over, go without."""
        if seat.until is None:
            return seat, None
        begun = self.clock()
        exactly = cache.unseen(replace(miss.query, semantic=False))

        def look() -> Flow[Match | None]:
            found = yield from cache.lookup_flow(exactly)
            return Shared(found.entry, 1.0, exact=True) if isinstance(found, Match) else None

        until = min(seat.until, begun + seat.patience)
        outcome = yield from self.failing.safely(leases.turn(miss.id, look, until), None)
        patience = max(0.0, seat.patience - (self.clock() - begun))
        found, lease = (outcome, None) if isinstance(outcome, Match) else (None, outcome)
        return replace(seat, found=found, patience=patience), lease
