"""The dispatcher: flight → cache → reserve → (the caller's model call) → settle → share → store.

It never calls a model: the caller does, between `begin` and `finish`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection
from typing import Literal, TypeAlias

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.cache import Asked, SemanticCache
from dispatch_core.errors import ConfigError, LimitError
from dispatch_core.failopen import FailOpen
from dispatch_core.flight import FREED, flight_key
from dispatch_core.flights import Flights
from dispatch_core.keeping import Keeping
from dispatch_core.lease import Leases
from dispatch_core.ports import Limiter, MeasuredStore, Reservation
from dispatch_core.refresh import Refreshes
from dispatch_core.seeking import Seeking
from dispatch_core.telemetry import Prices, Stats, Tally
from dispatch_core.ticket import Ticket, Way
from dispatch_core.types import Cost, Match, Query, Usage
from dispatch_core.write_behind import WriteBehind

OnError = Literal["miss", "raise"]

Pricing: TypeAlias = Callable[[], Flow[Cost | None]]
"""A flow that comes to the cost of a call when it must be made, and readies what will be sent."""

_COUNTER = {"exact": "exact_hits", "semantic": "semantic_hits", "flight": "shared"}
_log = logging.getLogger("dispatch_core")


class Dispatcher:
    """One cache and one limiter for any number of callers, threads and event loops.

    ``on_error="miss"`` turns a failing cache into misses (counted, logged once per change of state, with a circuit
    breaker); ``"raise"`` lets its errors through. Answers are written in the background, unless ``write_behind`` is
    false or the store works in memory. The same question finds an answer whose write is still under way; another
    wording of it does not, `flush` waits for that.

    With ``single_flight``, of all who ask the same question at the same moment (namespace, scope and canonical text)
    one is sent to the model; the others wait for its answer and get it as a match of the kind ``"flight"``, even if
    storing it fails. Who asks in other words, which the policy of the cache takes for the same question, waits for it
    and gets it, too; up to 256 questions under way are compared. If the answer is not worth storing, all go, each for
    himself; if the one who asks fails, gives up or is gone, another is next. Nobody waits longer than
    ``flight_timeout`` seconds, nor for himself: one thread, or one task, that asks again before its first ticket is
    ended gets a second ticket at once, and so does one of two who hold what the other asks for. Flights need a cache,
    but not one that works.

    With a ``lease``, in seconds, the same holds for all processes that share the store, for questions in the same
    words: one holds the lease of a question and asks, the others look for its answer up to twice a second. Their
    wait counts as waiting for the quota. It should be as long as the longest wait for the quota and call together:
    a call that outlasts it may be made twice, a process that is killed holds the others up for that long. An answer
    not worth storing reaches no other process: there they go one after another, as far as they wait at all.

    With ``prices``, `stats` says what was saved in money. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        cache: SemanticCache | None = None,
        limiter: Limiter | None = None,
        *,
        on_error: OnError = "miss",
        write_behind: bool = True,
        single_flight: bool = True,
        flight_timeout: float = 60.0,
        lease: float | None = None,
        prices: Prices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_error not in ("miss", "raise"):
            raise ConfigError(f"on_error is 'miss' or 'raise', got {on_error!r}")
        if not flight_timeout > 0:
            raise ConfigError(f"flight_timeout is a positive number of seconds, got {flight_timeout}")
        self.cache = cache
        self.limiter = limiter
        self._tally = Tally(prices)
        self._failing = FailOpen(self._tally, enabled=on_error == "miss", clock=clock)
        # A policy that cannot learn says nothing of the store, nor does one that can.
        learning = FailOpen(self._tally, enabled=on_error == "miss", clock=clock, part="learning")
        at_hand = cache is not None and getattr(cache.stored_in, "at_hand", False)
        self._writer = WriteBehind() if write_behind and self._failing.enabled and not at_hand else None
        self._flights = Flights(timeout=flight_timeout, clock=clock)
        self._refreshes = Refreshes(timeout=flight_timeout, clock=clock)
        self._single_flight = single_flight
        self._leases: Leases | None = None
        if lease is not None:
            if not single_flight:
                raise ConfigError("lease is for the leaders of flights: it needs single_flight")
            store = None if cache is None else cache.stored_in
            self._leases = Leases(store, seconds=lease, give_back=self._give_back, clock=clock)
        shared = self._flights, self._refreshes
        self._keeping = Keeping(self._tally, self._failing, learning, *shared, self._writer)
        self._seeking = Seeking(self._failing, *shared, self._leases, self._keeping, clock)

    @property
    def paused(self) -> bool:
        """The cache failed too often and is left alone for a while: calls go on as misses."""
        return self._failing.paused

    def begin(
        self,
        query: Query,
        cost: Cost | Pricing | None = None,
        *,
        timeout: float | None = None,
        alone: bool = False,
    ) -> Match | Ticket:
        """Look the question up; if the model must be asked, wait for a place in the quota first.

        Without a ``cost`` nothing is reserved. A `Pricing` comes to the cost only if the model must be asked: to
        compress a prompt, or to count it, is work that a hit can do without. What it raises is raised here.
        ``timeout`` is the longest wait for the quota, in seconds: waiting
        behind somebody who asks the same and waits for the quota counts, waiting for an answer under way does not.
        Who may never learn how his call ended asks ``alone``: he waits for nobody, and nobody for him.
        Raises `LimitExceeded` and `RequestTooLarge`.
        """
        found = self._at_once(query)
        return found if isinstance(found, Match) else run(self._begin(query, found, cost, timeout, alone))

    async def abegin(
        self,
        query: Query,
        cost: Cost | Pricing | None = None,
        *,
        timeout: float | None = None,
        alone: bool = False,
    ) -> Match | Ticket:
        found = self._at_once(query)
        return found if isinstance(found, Match) else await arun(self._begin(query, found, cost, timeout, alone))

    def finish(self, ticket: Ticket, payload: bytes | None, usage: Usage | None = None) -> None:
        """Settle the reservation, give the answer to those who wait for it, and store it.

        A ``payload`` of None is not worth storing, nor sharing.
        """
        run(self._finish(ticket, payload, usage))

    async def afinish(self, ticket: Ticket, payload: bytes | None, usage: Usage | None = None) -> None:
        await arun(self._finish(ticket, payload, usage))

    def abort(self, ticket: Ticket, *, sent: bool = True) -> None:
        """The call failed or was given up: nothing is stored, and the next who waits for the answer asks the model.

        A request that was sent may have been counted by the provider, so its charge stays; one that was not sent
        (``sent=False``) gives its place back.
        """
        try:
            if ticket.reservation is not None:
                if sent:
                    ticket.reservation.settle(None)
                else:
                    ticket.reservation.cancel()
        finally:
            self._end(ticket)

    def discard(self, match: Match) -> None:
        """A hit that its front cannot read counts as a failure and a miss, and its entry is deleted."""
        run(self._discard(match))

    async def adiscard(self, match: Match) -> None:
        await arun(self._discard(match))

    def unlooked(self, query: Query) -> Ticket:
        """A ticket without a lookup and without a reservation, to store an answer that came from elsewhere."""
        cache = self.cache
        return Ticket(query, None if cache is None or cache.why_not_at_all(query) else cache.unseen(query))

    def bypassed(self) -> None:
        """Count a call that went past the cache."""
        self._tally.count("bypassed")

    def stats(self) -> Stats:
        store = None if self.cache is None else self.cache.stored_in
        return self._tally.snapshot(store.memory() if isinstance(store, MeasuredStore) else None)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait for the writes under way; False if ``timeout`` seconds did not suffice."""
        ends = None if timeout is None else time.monotonic() + timeout
        if self._writer is not None and not self._writer.flush(timeout):
            return False
        return self._leases is None or self._leases.flush(None if ends is None else ends - time.monotonic())

    async def aflush(self, timeout: float | None = None) -> bool:
        return (self._writer is None and self._leases is None) or await asyncio.to_thread(self.flush, timeout)

    def clear(self, namespace: str | None = None, *, tags: Collection[str] | None = None) -> int:
        """Forget one namespace, or all; with ``tags``, of these what carries any of them. Returns how many.

        Raises `StoreError`, for a caller who clears must know.
        """
        self.flush()
        return 0 if self.cache is None else self.cache.clear(namespace, tags=tags)

    async def aclear(self, namespace: str | None = None, *, tags: Collection[str] | None = None) -> int:
        await self.aflush()
        return 0 if self.cache is None else await self.cache.aclear(namespace, tags=tags)

    def reject(self, hit_id: str) -> bool:
        """A hit was wrong: see `SemanticCache.reject`. Raises `StoreError`, for who takes back must know."""
        return run(self._reject(hit_id))

    async def areject(self, hit_id: str) -> bool:
        return await arun(self._reject(hit_id))

    def close(self) -> None:
        """Finish the writes and release the store."""
        self.flush()
        if self.cache is not None:
            self.cache.close()

    async def aclose(self) -> None:
        await self.aflush()
        if self.cache is not None:
            await self.cache.aclose()

    def _at_once(self, query: Query) -> Match | Asked | None:
        """A hit for which nobody need wait, nor be told; or else the question, as far as it was read."""
        read = None
        try:
            if self.cache is None:
                return None
            read = self.cache.read(query)
            found = self.cache.found_at_once(read)
        except Exception:
            # The lookup meets it again, and what fails there is counted, logged, and perhaps raised.
            return read
        if found is None:
            return read
        self._tally.count("exact_hits", saved=found.entry.usage)
        return found

    def _begin(
        self, query: Query, read: Asked | None, cost: Cost | Pricing | None, timeout: float | None, alone: bool
    ) -> Flow[Match | Ticket]:
        queues = self.limiter is not None and cost is not None
        patience = timeout if queues and timeout is not None else math.inf
        cache = self.cache
        if cache is None:
            return Ticket(query, None, (yield from self._reserve(cost, patience)))
        unseen, bypass = read or cache.read(query)
        if bypass is not None:
            self.bypassed()
            return Ticket(query, None, (yield from self._reserve(cost, patience)))
        # In the shadow nothing is served, not even what others are told at the same moment.
        if self._single_flight and not alone and not cache.shadow:
            seat = yield from self._flights.join(flight_key(unseen), patience)
        else:
            seat = self._flights.alone(patience)
        way = Way(seat)
        try:
            found = yield from self._seeking.seek(cache, unseen, way)
            if isinstance(found, Match):
                way.seat.lead.end(found)
                return (yield from self._served(cache, found))
            self._tally.count("misses")
            reservation = yield from self._reserve(cost, way.seat.patience)
            way.seat.lead.admitted()
        except BaseException as error:
            # The traceback may keep all of these for long.
            way.give_up(self._refreshes)
            if way.stale is None or not isinstance(error, LimitError):
                raise
            # An old answer is better than none.
            self._tally.count("misses", -1)
            return (yield from self._served(cache, way.stale))
        return Ticket(query, found, reservation, way.seat.lead, way.lease, way.stale)

    def _served(self, cache: SemanticCache, found: Match) -> Flow[Match]:
        self._tally.count(_COUNTER[found.kind], saved=found.entry.usage)
        yield from self._failing.safely(cache.prolong_flow(found.entry), None)
        return found

    def _reserve(self, cost: Cost | Pricing | None, patience: float) -> Flow[Reservation | None]:
        if callable(cost):
            cost = yield from cost()
        if self.limiter is None or cost is None:
            return None
        timeout = None if patience == math.inf else patience
        return (yield from step(self.limiter.acquire, self.limiter.aacquire, cost, timeout=timeout))

    def _finish(self, ticket: Ticket, payload: bytes | None, usage: Usage | None) -> Flow[None]:
        kept = False
        try:
            if ticket.reservation is not None:
                ticket.reservation.settle(usage)
            if self.cache is None or ticket.miss is None or payload is None:
                if ticket.lead is not None and ticket.miss is not None:
                    ticket.lead.end(ticket.miss)
                self._tally.count("not_stored", spent=usage)
            else:
                entry = self.cache.entry(ticket.miss, payload, usage)
                kept = True
                yield from self._keeping.keep(self.cache, ticket, ticket.miss, entry, usage)
        finally:
            self._end(ticket, let_go=not kept)

    def _reject(self, hit_id: str) -> Flow[bool]:
        # The answer may still be on its way to the store, where it would take the tombstone's place.
        yield from step(self.flush, self.aflush)
        known = self.cache is not None and (yield from step(self.cache.reject, self.cache.areject, hit_id))
        self._tally.count("rejected", known)
        return known

    def _end(self, ticket: Ticket, *, let_go: bool = True) -> None:
        """Who waits in this process is freed; who waits in another, where an answer is kept, when it is written."""
        if ticket.lead is not None:
            ticket.lead.end(FREED)
        if let_go:
            ticket.let_go(self._refreshes)

    def _give_back(self, release: Flow[None]) -> None:
        """Of a lease that cannot be given back nobody is there to hear, and it runs out."""
        run(self._failing.safely(release, None, always=True))

    def _discard(self, match: Match) -> Flow[None]:
        saved = match.entry.usage
        self._tally.count(_COUNTER[match.kind], -1, saved=Usage(-saved.input_tokens, -saved.output_tokens))
        self._tally.count("misses")
        self._tally.count("failures")
        _log.warning("an entry of the cache could not be read and was deleted: %s", match.entry.id)
        if self.cache is not None:
            store = self.cache.stored_in
            yield from self._failing.safely(step(store.delete, store.adelete, match.entry.id), None)
