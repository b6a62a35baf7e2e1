"""Single flight: of all who ask the same question at one moment, one asks the model and the others get its answer.

A *flight* is a question being answered. Who comes first leads it, the others follow. It ends with a `Match`, to
serve to all; or with a `Miss`, when the answer is not worth keeping: each goes for himself, and need not look again;
or it is freed, because its leader failed, gave up or is gone: one of those who followed leads the next.

A leader whose lookup missed may find that an older flight answers his question in other words. He waits *behind* that
one and leads his own meanwhile. Nobody waits behind a younger flight, so that no two wait for each other.

Nothing here waits for a lock: what ends a flight may be a finaliser, which the garbage collector runs in the middle
of anything. It is enough that one step on a dict or a lock is one step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dispatch_core._flow import Flow, step
from dispatch_core._fork import renew_in_child
from dispatch_core._wake import Sleeper
from dispatch_core.flight import FREED, Asker, Flight, Key, Lead, Shared, this_task, this_thread
from dispatch_core.near import Block, cosine
from dispatch_core.types import Entry, Match, Miss, Vector

READING = 1.0
"""Seconds that others wait while the reader of a stream does something else than read. He may be waiting for one of
them."""

Same: TypeAlias = Callable[[Entry, float], bool]
"""Whether the question of an entry, so near in cosine, is the question that is asked."""


@dataclass(frozen=True, slots=True)
class Seat:
    """How to go on: with what the flight ``found``, or by oneself, as the leader of others or alone.

    ``patience`` is how many seconds are left to wait for the quota, ``until`` the instant up to which a leader may
    wait for others; None for one who is alone and waits for nobody.
    """

    lead: Lead
    found: Match | Miss | None
    patience: float
    until: float | None = None


class Flights:
    """The questions being answered in this process, for threads and any number of event loops at once.

    ``timeout`` is how many seconds anybody waits for others; a flight older than that is followed no more.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._table: dict[Key, Flight] = {}
        self._block: Block[Flight] = Block()
        self._waits: dict[tuple[int, int], Flight] = {}
        renew_in_child(self)

    def __len__(self) -> int:
        return len(self._table)

    def start_anew(self) -> None:
        """The leaders of a forked child's flights answer in the parent, and those who wait there, wait there."""
        for flight in self._table.values():
            flight.waiting.clear()
        self._table, self._block, self._waits = {}, Block(), {}

    def alone(self, patience: float, found: Match | Miss | None = None) -> Seat:
        """A seat on a flight that nobody can follow."""
        return Seat(Lead(Flight({}, ("", False), 0.0), self._clock), found, patience)

    def land(self, key: Key, match: Match) -> None:
        """Whoever has the answer, has it for all."""
        flight = self._table.get(key)
        if flight is not None:
            flight.end(match)

    def join(self, key: Key, patience: float) -> Flow[Seat]:
        """Lead the flight, or wait for what comes of it; ``patience`` is spent only while its leader waits for the
        quota too. Never raises."""
        deadline = self._clock() + self._timeout
        while True:
            flight = self._flight(key)
            if isinstance(flight, Lead):
                return Seat(flight, None, patience, deadline)
            left = yield from self._follow(flight, deadline, patience)
            if left is None:
                return self.alone(patience)
            patience = left
            if isinstance(flight.outcome, Match | Miss):
                return self.alone(patience, flight.outcome)
            if flight.outcome is None:
                if self._clock() < flight.expires and self._pause(flight) > 0:
                    return self.alone(patience)
                flight.end(FREED)

    def join_near(self, seat: Seat, question: Entry, vector: Vector, same: Same, limit: int) -> Flow[Seat]:
        """For a leader whose lookup missed: wait behind older flights as long as one of the ``limit`` nearest in the
        scope is the ``same``; from now on others may wait behind this one. Raises what ``same`` raises.

        If the older one is freed, the oldest of those behind it goes, and the others wait behind that one.
        """
        mine, patience = seat.lead.flight, seat.patience
        if seat.until is None:
            return seat
        mine.announce(question, vector, self._block)
        while (other := self._older(mine, question.scope, vector, same, limit)) is not None:
            mine.behind = other
            left = yield from self._follow(other, seat.until, patience)
            patience = patience if left is None else left
            outcome = other.outcome
            if isinstance(outcome, Match):
                shared = _shared(other, outcome.entry, vector, same)
                if shared is not None:
                    return Seat(seat.lead, shared, patience, seat.until)
            mine.behind = None
            if outcome is None or isinstance(outcome, Miss):
                break
        # Meanwhile somebody else may have had the answer.
        landed = mine.outcome if isinstance(mine.outcome, Match) else None
        return Seat(seat.lead, landed, patience, seat.until)

    def _older(self, mine: Flight, scope: str, vector: Vector, same: Same, limit: int) -> Flight | None:
        """The nearest flight to wait behind: older, so that no circle can close, and not waiting itself."""
        now, number = self._clock(), mine.number
        others = (
            (other, score)
            for other, score in self._block.nearest(scope, vector)
            if other.number < number and other.outcome is None and not other.waits and now < other.expires
        )
        for other, score in itertools.islice(others, limit):
            if other.question is not None and same(other.question, score):
                return other
        return None

    def _flight(self, key: Key) -> Flight | Lead:
        """The flight to follow, or the lead of a new one."""
        table = self._table
        flight = table.get(key)
        if flight is None:
            mine = Flight(table, key, self._clock() + self._timeout)
            flight = table.setdefault(key, mine)
            if flight is mine:
                return Lead(mine, self._clock)
        return flight

    def _follow(self, flight: Flight, deadline: float, patience: float) -> Flow[float | None]:
        """Wait until it ends, or no longer makes sense; the patience that is left, or None for one who would wait for
        himself."""
        since, latest = self._clock(), min(deadline, flight.expires)
        asker = yield from step(this_thread, this_task)
        sleeper = Sleeper()
        # Said before it is looked for: of all whose waiting would close a circle at least the last one sees it.
        self._waits[asker.thread, asker.task] = flight
        try:
            if self._leads_back(flight, asker):
                return None
            flight.waiting[sleeper] = None
            flight.watch()
            while flight.outcome is None:
                until = latest if flight.admitted is not None else min(latest, since + patience)
                left = min(until - self._clock(), self._pause(flight))
                if left <= 0:
                    break
                yield from step(sleeper.wait, sleeper.await_, left)
        finally:
            flight.waiting.pop(sleeper, None)
            self._waits.pop((asker.thread, asker.task), None)
        admitted = flight.admitted
        queued = (self._clock() if admitted is None else admitted) - since
        return max(0.0, patience - max(0.0, queued))

    def _pause(self, flight: Flight) -> float:
        """For how many seconds nobody need look whether a stream is still read; none left when it is not."""
        if not flight.streams:
            return math.inf
        reading = flight.read_since
        return READING if reading is None else reading + READING - self._clock()

    def _leads_back(self, flight: Flight, asker: Asker) -> bool:
        """Does the flight, or one that its leader waits for, wait for this asker, who holds another ticket?"""
        todo, seen = [flight], set()
        while todo:
            one = todo.pop()
            if one in seen or one.outcome is not None:
                continue
            if one.held_up_by(asker):
                return True
            seen.add(one)
            todo += [next_one for key in one.leaders() if (next_one := self._waits.get(key)) is not None]
        return False


def _shared(other: Flight, entry: Entry, vector: Vector, same: Same) -> Shared | None:
    """The answer that another flight brought. If that one had it from a third, whose question nobody compared with
    ours yet, it is compared now."""
    source = other
    while source.behind is not None:
        source = source.behind
    if source.question is None or source.vector is None or source.question.id != entry.id:
        return None
    score = cosine(source.vector, vector)
    return Shared(entry, score) if source is other or same(source.question, score) else None
