"""One request: cache, quota, upstream, answer. A front like the others: all decisions are the core's."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from dispatch_core import Ticket
from dispatch_core.errors import LimitError
from dispatch_core.keys import scope_digest
from dispatch_core.limit.feedback import retry_after
from dispatch_core.spans import Call as CallSpan
from dispatch_core.spans import Spans
from dispatch_core.types import Match, Query, Usage
from dispatch_gateway import signals
from dispatch_gateway.admission import Account, Admission, Admissions, Deployment, Fare
from dispatch_gateway.caches import Caches
from dispatch_gateway.config import Settings
from dispatch_gateway.control import Control
from dispatch_gateway.errors import NO_RETRY, ApiError
from dispatch_gateway.http import EVENTS, JSON, PRIVATE, Out
from dispatch_gateway.meters import Meters, Outcome
from dispatch_gateway.sse import Splitter, event
from dispatch_gateway.tenants import Tenant
from dispatch_gateway.upstream import LOST, Failure, Upstreams, failure_of, json_of, plain, told_headers
from dispatch_gateway.wire import Call, Wire

_A_MOMENT = 1.0
_UNREADABLE = (ValueError, TypeError, LookupError)
_BROKEN_OFF = "The upstream broke its answer off."


@dataclass(frozen=True, slots=True)
class Services:
    """What all exchanges share."""

    settings: Settings
    upstreams: Upstreams
    admissions: Admissions
    caches: Caches
    meters: Meters
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, understood. Of the caller's ``headers``, those ``asked`` go along."""

    wire: Wire
    call: Call
    control: Control
    tenant: Tenant
    account: Account
    pool: Sequence[Deployment]
    asked: Mapping[str, str]
    headers: Mapping[str, str]


class Exchange:
    """Answers one ask. ``upstream`` and ``queued`` are the seconds that it spent elsewhere, ``outcome`` what it came
    to; ``why`` is RFC 9211's reason for going to the upstream."""

    def __init__(self, services: Services, ask: Ask, out: Out) -> None:
        self._services = services
        self._ask = ask
        self._out = out
        self._dispatcher = services.caches.variant(ask.control.threshold, ask.control.ttl)
        self._why, self._detail = "miss", ""
        self._begun = 0.0
        self._span: CallSpan | None = None
        self.outcome: Outcome = "rejected"
        self.deployment = ""
        self.upstream = self.queued = 0.0

    async def run(self) -> None:
        """Raises `ApiError`, `LimitError`, and what cancels it."""
        found = await self._begin()
        if isinstance(found, Match):
            await self._hit(found)
            return
        try:
            with self._spanned() as self._span:
                await self._miss(found)
        except BaseException:
            # Nothing happens to a ticket that was finished.
            self._waste(found)
            self._dispatcher.abort(found)
            raise

    async def _begin(self) -> Match | Ticket:
        """An answer to serve, or a ticket that holds an `Admission`."""
        ask, control, dispatcher = self._ask, self._ask.control, self._dispatcher
        query = self._query()
        if query is None or dispatcher.cache is None:
            return await self._past(ask.call.past or "")
        reason = dispatcher.cache.why_not_at_all(query)
        if control.only_if_cached:
            return await self._only_cached(query)
        if control.no_cache:
            return await self._anew(query, "request")
        fare = self._fare()
        found = await dispatcher.abegin(query, fare, timeout=self._patience, alone=control.no_store)
        if isinstance(found, Match):
            if self._too_old(found):
                return await self._anew(query, "stale")
            return found if self._readable(found) else await self._unreadable(query, found)
        if reason is not None:
            self._why, self._detail = "bypass", reason
        self._admitted(found)
        return found

    def _query(self) -> Query | None:
        call, control, tenant = self._ask.call, self._ask.control, self._ask.tenant
        if call.past is not None:
            return None
        facts = {"model": call.model, "headers": self._ask.asked, "asked": call.facts}
        if tenant.credential is not None and any(one.settings.api_key is None for one in self._ask.pool):
            facts["credential"] = tenant.account
        return Query(
            call.text,
            scope_digest(facts),
            tenant.narrowed(control.namespace),
            call.semantic and not (control.threshold or 0.0) >= 1.0,
            tags=(tenant.tag(), *(tenant.tag(tag) for tag in control.tags)),
        )

    async def _past(self, reason: str) -> Ticket:
        if self._ask.control.only_if_cached:
            raise _not_cached()
        self._why, self._detail = "bypass", reason
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
        self._why = why
        return await self._reserved(self._dispatcher.unlooked(query))

    async def _unreadable(self, query: Query, found: Match) -> Ticket:
        """Another version wrote it."""
        await self._dispatcher.adiscard(found)
        return await self._reserved(self._dispatcher.unlooked(query))

    async def _reserved(self, ticket: Ticket) -> Ticket:
        reservation = await self._services.admissions.aacquire(self._fare(), timeout=self._patience)
        ticket = replace(ticket, reservation=reservation)
        self._admitted(ticket)
        return ticket

    def _admitted(self, ticket: Ticket) -> None:
        admission, meters = _admission(ticket), self._services.meters
        self.queued += admission.waited
        meters.waited(admission.waited)
        meters.spent("reserved", admission.fare.tokens)

    def _fare(self) -> Fare:
        ask, admissions = self._ask, self._services.admissions
        cost = admissions.estimate(ask.call.prompt, max_tokens=ask.call.max_tokens, model=ask.call.model)
        return Fare.of(cost, ask.tenant, ask.account, ask.pool)

    @property
    def _patience(self) -> float:
        return self._services.settings.timeouts.queue

    def _too_old(self, found: Match) -> bool:
        most = self._ask.control.max_age
        return most is not None and time.time() - found.entry.created > most

    def _readable(self, found: Match) -> bool:
        try:
            self._body(found)
        except _UNREADABLE:
            return False
        return True

    def _body(self, found: Match) -> bytes:
        ask = self._ask
        replay = ask.wire.streamed if ask.call.stream else ask.wire.whole
        return replay(ask.call, found.entry.payload)

    async def _hit(self, found: Match) -> None:
        self.outcome = self._services.meters.hit(found.kind, found.entry.usage)
        if self._services.spans is not None:
            self._services.spans.hit(found, self._ask.headers)
        kind = EVENTS if self._ask.call.stream else JSON
        headers = {**kind, **PRIVATE, **signals.hit(found, time.time())}
        await self._out.whole(200, headers, self._body(found))

    def _spanned(self) -> AbstractContextManager[CallSpan | None]:
        ask, spans = self._ask, self._services.spans
        if spans is None:
            return nullcontext()
        wire, call = ask.wire, ask.call
        facts = {"provider": wire.provider, "max_tokens": call.max_tokens, "queued": self.queued}
        return spans.call(wire.operation, call.model, ask.headers, **facts)

    async def _miss(self, ticket: Ticket) -> None:
        self.outcome = "miss" if ticket.miss is not None else "bypass"
        self._begun = time.monotonic()
        answer = await self._call(_admission(ticket))
        if isinstance(answer, Failure):
            self.upstream = self._since_begun()
            await self._failed(ticket, answer)
            return
        try:
            if answer.content_type == "text/event-stream":
                await self._relay(ticket, answer)
            else:
                await self._whole(ticket, answer)
        finally:
            answer.close()
        self._services.meters.ended(self.outcome)

    async def _call(self, admission: Admission) -> aiohttp.ClientResponse | Failure:
        """The response of a deployment that took the call, or the failure of the last that did not."""
        ask, services = self._ask, self._services
        tried: list[Deployment] = []
        while True:
            deployment = admission.deployment
            self.deployment = deployment.name
            tried.append(deployment)
            place = deployment.settings
            body = ask.wire.sent(ask.call, place.model or ask.call.model, stream_usage=place.stream_usage)
            try:
                answer = await services.upstreams.post(deployment, ask.wire, body, ask.tenant, ask.asked)
                if answer.status < 300:
                    return answer
                failure = await failure_of(answer)
                if failure.status < 400:
                    # Where it points to, a key must not go.
                    failure = Failure(502, b"")
            except LOST as error:
                failure = _lost(ask.wire, error)
            if failure.status >= 500:
                admission.failed(time.monotonic())
            throttled = admission.refused(failure.status, failure.headers, failure.body)
            if failure.refused:
                services.meters.refused(deployment.name)
            if not await self._moved(admission, failure, tried, throttled=throttled):
                return failure

    async def _moved(
        self, admission: Admission, failure: Failure, tried: Sequence[Deployment], *, throttled: bool
    ) -> bool:
        """Whether another attempt is worth it, and has its place."""
        services, pool = self._services, admission.fare.pool
        fresh = len({*tried}) < len(pool)
        if failure.status < 500 and not failure.refused:
            return False
        if not fresh and (not throttled or len(tried) >= len(pool) + services.settings.retries):
            return False
        begun = time.monotonic()
        try:
            await services.admissions.amove(admission, tried if fresh else (), self._patience)
        except LimitError:
            return False
        finally:
            waited = time.monotonic() - begun
            self.queued += waited
            # What is waited for a place is no time of the upstream's.
            self._begun += waited
        return True

    async def _failed(self, ticket: Ticket, failure: Failure) -> None:
        """The upstream's error as it is; an old answer is better than that."""
        admission = _admission(ticket)
        if self._span is not None:
            self._span.failed(str(failure.status))
        if failure.refused:
            admission.forgive()
        if failure.status < 500:
            # It was refused or not understood, and used nothing.
            admission.settle(Usage(), failure.headers)
        self._dispatcher.abort(ticket)
        if ticket.stale is not None and self._readable(ticket.stale):
            await self._hit(ticket.stale)
            return
        self.outcome = "rejected"
        self._services.meters.ended("rejected")
        headers = {**JSON, **PRIVATE, **told_headers(failure.headers), **signals.forwarded(self._why)}
        if failure.status == 429:
            headers |= signals.busy(admission.deployment.limiters, retry_after(failure.headers) or _A_MOMENT)
        body = failure.body
        if not isinstance(json_of(body), dict):
            said = f"The upstream failed with status {failure.status}."
            body = self._ask.wire.error(ApiError(failure.status, said, kind="api_error", code="upstream_error"))
        await self._out.whole(failure.status, headers, body)

    async def _whole(self, ticket: Ticket, answer: aiohttp.ClientResponse) -> None:
        wire = self._ask.wire
        try:
            body = await answer.read()
        except LOST as error:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error") from error
        self.upstream = self._since_begun()
        said = json_of(body)
        payload = None if self._ask.control.no_store else wire.payload(said)
        await self._finish(ticket, payload, wire.usage(said), answer, None)
        stored = payload is not None and ticket.miss is not None and self._why != "bypass"
        headers = {
            "content-type": answer.headers.get("content-type", "application/json"),
            **PRIVATE,
            **told_headers(answer.headers),
            **signals.forwarded(
                self._why, stored=stored, detail=self._detail, id=ticket.miss.id if ticket.miss else ""
            ),
        }
        await self._out.whole(answer.status, headers, body)

    async def _relay(self, ticket: Ticket, answer: aiohttp.ClientResponse) -> None:
        """Event for event; what ends the stream is sent when the answer is stored."""
        recorder, splitter = self._ask.wire.recorder(self._ask.call), Splitter()
        headers = {**EVENTS, **PRIVATE, **told_headers(answer.headers)}
        headers |= {"x-accel-buffering": "no", **signals.forwarded(self._why, detail=self._detail)}
        await self._out.start(200, headers)
        first: float | None = None
        finished = False
        try:
            async for data in answer.content.iter_any():
                first = self._since_begun() if first is None else first
                shown = [one for one in splitter.feed(data) if recorder.take(one)]
                if recorder.ended and not finished:
                    finished = True
                    payload = None if self._ask.control.no_store else recorder.payload()
                    await self._finish(ticket, payload, recorder.usage, answer, first)
                if shown:
                    await self._out.more(b"".join(one.raw for one in shown))
        except (*LOST, ValueError) as error:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error") from error
        self.upstream = self._since_begun()
        if not recorder.ended:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error")
        await self._out.end()

    async def _finish(
        self,
        ticket: Ticket,
        payload: bytes | None,
        usage: Usage | None,
        answer: aiohttp.ClientResponse,
        first: float | None,
    ) -> None:
        admission, meters = _admission(ticket), self._services.meters
        admission.settle(usage, plain(answer.headers), first_token=first)
        if usage is not None:
            meters.spent("provider", usage.total)
        if self._span is not None:
            self._span.used(usage)
            self._span.note(deployment=self.deployment, server=answer.url.host)
        await self._dispatcher.afinish(ticket, payload, usage)

    def _since_begun(self) -> float:
        return time.monotonic() - self._begun

    def _waste(self, ticket: Ticket) -> None:
        admission = _admission(ticket)
        if admission.open:
            self._services.meters.spent("wasted", admission.fare.tokens)


def failed_stream(wire: Wire, error: ApiError) -> bytes:
    """The last event of a stream that cannot go on."""
    name = "error" if wire.provider == "anthropic" else None
    return event(wire.error(error), name)


def _admission(ticket: Ticket) -> Admission:
    reservation: Any = ticket.reservation
    assert isinstance(reservation, Admission)
    return reservation


def _not_cached() -> ApiError:
    return ApiError(
        504,
        "No stored answer will do, and nothing else was wanted (only-if-cached).",
        code="not_cached",
        headers={**NO_RETRY, "cache-status": "dispatch; fwd=miss"},
    )


def _lost(wire: Wire, error: BaseException) -> Failure:
    """A connection that could not be made or broke, in the words of an error. The exception's own may name hosts."""
    slow = isinstance(error, TimeoutError)
    said = "The upstream did not answer in time." if slow else "The upstream cannot be reached."
    code = "upstream_timeout" if slow else "upstream_unreachable"
    status = 504 if slow else 502
    return Failure(status, wire.error(ApiError(status, said, kind="api_error", code=code)))
