"""One request: cache, quota, upstream, answer. A front like the others: all decisions are the core's."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from dispatch_core import Ticket
from dispatch_core._flow import Flow, arun
from dispatch_core.spans import Call as CallSpan
from dispatch_core.types import Match, Query
from dispatch_gateway import signals
from dispatch_gateway.admission import Fare
from dispatch_gateway.ask import Ask, Course, Services, admission_of
from dispatch_gateway.errors import NO_RETRY, ApiError
from dispatch_gateway.forward import Forward
from dispatch_gateway.http import EVENTS, JSON, PRIVATE, Out


class Exchange:
    """Answers one ask, and notes in ``course`` what becomes of it."""

    def __init__(self, services: Services, ask: Ask, out: Out, course: Course) -> None:
        self._services = services
        self._ask = ask
        self._out = out
        self._course = course
        self._shortens = ask.shortener is not None and not ask.control.whole
        self._dispatcher = services.caches.variant(ask.control.threshold, ask.control.ttl)
        self._replayed: bytes | None = None

    async def run(self) -> None:
        """Raises `ApiError`, `LimitError`, and what cancels it."""
        found = await self._begin()
        if isinstance(found, Match):
            await self._hit(found)
            return
        try:
            with self._spanned() as span:
                parts = self._services, self._ask, self._out, self._course
                stale = await Forward(*parts, dispatcher=self._dispatcher, ticket=found, span=span).run()
                if stale is not None:
                    await self._hit(stale)
        except BaseException:
            # Nothing happens to a ticket that was finished.
            self._waste(found)
            self._dispatcher.abort(found)
            raise

    async def _begin(self) -> Match | Ticket:
        """An answer to serve, or a ticket that holds an `Admission`."""
        ask, control, dispatcher = self._ask, self._ask.control, self._dispatcher
        query = ask.query()
        if query is None or dispatcher.cache is None:
            return await self._past(ask.call.past or "")
        if control.only_if_cached:
            return await self._only_cached(query)
        if control.no_cache:
            return await self._anew(query, "request")
        found = await dispatcher.abegin(query, self._priced, timeout=self._patience, alone=control.no_store)
        if isinstance(found, Match):
            if self._too_old(found):
                return await self._anew(query, "stale")
            return found if self._readable(found) else await self._unreadable(query, found)
        if found.miss is None:
            self._course.why, self._course.detail = "bypass", dispatcher.cache.why_not_at_all(query) or ""
        self._admitted(found)
        return found

    async def _past(self, reason: str) -> Ticket:
        if self._ask.control.only_if_cached:
            raise _not_cached()
        self._course.why, self._course.detail = "bypass", reason
        self._dispatcher.bypassed()
        return await self._reserved(Ticket(Query(""), None))

    async def _only_cached(self, query: Query) -> Match:
        found = await self._dispatcher.abegin(query, None, alone=True)
        if isinstance(found, Ticket):
            self._dispatcher.abort(found, sent=False)
        elif not self._ask.control.no_cache and not self._too_old(found) and self._readable(found):
            return found
        raise _not_cached()

    async def _anew(self, query: Query, why: str) -> Ticket:
        """Ask the upstream, whatever is stored; the answer takes its place."""
        self._course.why = why
        return await self._reserved(self._dispatcher.unlooked(query))

    async def _unreadable(self, query: Query, found: Match) -> Ticket:
        """Another version wrote it."""
        await self._dispatcher.adiscard(found)
        return await self._reserved(self._dispatcher.unlooked(query))

    async def _reserved(self, ticket: Ticket) -> Ticket:
        admissions = self._services.admissions
        fare = await arun(self._priced()) if self._shortens else self._ask.fare(admissions)
        reservation = await admissions.aacquire(fare, timeout=self._patience)
        ticket = replace(ticket, reservation=reservation)
        self._admitted(ticket)
        return ticket

    def _priced(self) -> Flow[Fare]:
        """Make the prompt shorter, once; what is left of it is what is reserved and sent."""
        ask, services = self._ask, self._services
        whole = ask.fare(services.admissions)
        if ask.shortener is None or not self._shortens:
            return whole
        self._shortens = False
        begun = time.monotonic()
        call = yield from ask.shortener.shortened(ask.wire, ask.call)
        services.meters.shortened(time.monotonic() - begun)
        shorter = replace(ask, call=call)
        fare = shorter.fare(services.admissions)
        if fare.input_tokens >= whole.input_tokens:
            return whole
        self._ask, self._course.prompt = shorter, (whole.input_tokens, fare.input_tokens)
        return fare

    def _admitted(self, ticket: Ticket) -> None:
        admission, meters = admission_of(ticket), self._services.meters
        self._course.queued += admission.waited
        meters.waited(admission.waited)
        meters.spent("reserved", admission.fare.tokens)

    @property
    def _patience(self) -> float:
        return self._services.settings.timeouts.queue

    def _too_old(self, found: Match) -> bool:
        most = self._ask.control.max_age
        return most is not None and time.time() - found.entry.created > most

    def _readable(self, found: Match) -> bool:
        self._replayed = self._ask.replayed(found)
        return self._replayed is not None

    async def _hit(self, found: Match) -> None:
        self._course.outcome = self._services.meters.hit(found.kind, found.entry.usage)
        if self._services.spans is not None:
            self._services.spans.hit(found, self._ask.headers)
        kind = EVENTS if self._ask.call.stream else JSON
        headers = {**kind, **PRIVATE, **signals.hit(found, time.time())}
        body = self._replayed if self._replayed is not None else self._ask.replay(found)
        await self._out.whole(200, headers, body)

    def _spanned(self) -> AbstractContextManager[CallSpan | None]:
        ask, spans = self._ask, self._services.spans
        if spans is None:
            return nullcontext()
        wire, call = ask.wire, ask.call
        facts = {"provider": wire.provider, "max_tokens": call.max_tokens, "queued": self._course.queued}
        if self._course.prompt is not None:
            facts["left_out"] = self._course.left_out
        return spans.call(wire.operation, call.model, ask.headers, **facts)

    def _waste(self, ticket: Ticket) -> None:
        admission = admission_of(ticket)
        if admission.open:
            self._services.meters.spent("wasted", admission.fare.tokens)


def _not_cached() -> ApiError:
    return ApiError(
        504,
        "No stored answer will do, and nothing else was wanted (only-if-cached).",
        code="not_cached",
        headers={**NO_RETRY, "cache-status": "dispatch; fwd=miss"},
    )
