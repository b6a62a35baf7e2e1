"""A call on its way: to the deployments that may take it, and their answer back to the caller and into the cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import aiohttp

from dispatch_core import Dispatcher, Ticket
from dispatch_core.errors import LimitError
from dispatch_core.limit.feedback import retry_after
from dispatch_core.spans import Call as CallSpan
from dispatch_core.types import Match, Usage
from dispatch_gateway import signals
from dispatch_gateway.admission import Admission, Deployment
from dispatch_gateway.ask import Ask, Course, Services, admission_of
from dispatch_gateway.errors import ApiError
from dispatch_gateway.http import EVENTS, JSON, PRIVATE, Out
from dispatch_gateway.sse import Splitter, event
from dispatch_gateway.upstream import LOST, Failure, failure_of, json_of, told_and_limits, told_headers
from dispatch_gateway.wire import Wire

_A_MOMENT = 1.0
_BROKEN_OFF = "The upstream broke its answer off."


class Forward:
    """Takes one ask, whose ``ticket`` holds an `Admission`, to the upstream."""

    __slots__ = ("_ask", "_begun", "_course", "_dispatcher", "_out", "_services", "_span", "_ticket")

    def __init__(
        self,
        services: Services,
        ask: Ask,
        out: Out,
        course: Course,
        *,
        dispatcher: Dispatcher,
        ticket: Ticket,
        span: CallSpan | None,
    ) -> None:
        self._services = services
        self._ask = ask
        self._out = out
        self._course = course
        self._dispatcher = dispatcher
        self._ticket = ticket
        self._span = span
        self._begun = time.monotonic()

    async def run(self) -> Match | None:
        """None when the caller was answered; an old answer that is better than the upstream's error. Raises
        `ApiError`, and what cancels it."""
        self._course.outcome = "miss" if self._ticket.miss is not None else "bypass"
        answer = await self._call(admission_of(self._ticket))
        if isinstance(answer, Failure):
            self._course.upstream = self._since_begun()
            return await self._failed(answer)
        try:
            if answer.content_type == "text/event-stream":
                await self._relay(answer)
            else:
                await self._whole(answer)
        finally:
            answer.close()
        return None

    async def _call(self, admission: Admission) -> aiohttp.ClientResponse | Failure:
        """The response of a deployment that took the call, or the failure of the last that did not."""
        ask, services = self._ask, self._services
        tried: list[Deployment] = []
        while True:
            deployment = admission.deployment
            self._course.deployment = deployment.name
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
            await services.admissions.amove(admission, tried if fresh else (), services.settings.timeouts.queue)
        except LimitError:
            return False
        finally:
            waited = time.monotonic() - begun
            self._course.queued += waited
            # What is waited for a place is no time of the upstream's.
            self._begun += waited
        return True

    async def _failed(self, failure: Failure) -> Match | None:
        """The upstream's error as it is; an old answer is better than that."""
        ticket, admission = self._ticket, admission_of(self._ticket)
        if self._span is not None:
            self._span.failed(str(failure.status))
        if failure.refused:
            admission.forgive()
        if failure.status < 500:
            # It was refused or not understood, and used nothing.
            admission.settle(Usage(), failure.headers)
        self._dispatcher.abort(ticket)
        if ticket.stale is not None and self._ask.replayed(ticket.stale) is not None:
            return ticket.stale
        self._course.outcome = "rejected"
        headers = {**JSON, **PRIVATE, **told_headers(failure.headers), **signals.forwarded(self._course.why)}
        headers |= signals.shortened(self._course.prompt)
        if failure.status == 429:
            headers |= signals.busy(admission.deployment.limiters, retry_after(failure.headers) or _A_MOMENT)
        body = failure.body
        if not isinstance(json_of(body), dict):
            said = f"The upstream failed with status {failure.status}."
            body = self._ask.wire.error(ApiError(failure.status, said, kind="api_error", code="upstream_error"))
        await self._out.whole(failure.status, headers, body)
        return None

    async def _whole(self, answer: aiohttp.ClientResponse) -> None:
        wire, course, miss = self._ask.wire, self._course, self._ticket.miss
        try:
            body = await answer.read()
        except LOST as error:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error") from error
        course.upstream = self._since_begun()
        said, (told, limits) = json_of(body), told_and_limits(answer.headers)
        payload = None if self._ask.control.no_store else wire.payload(said)
        await self._finish(payload, wire.usage(said), answer, limits)
        stored = payload is not None and miss is not None and course.why != "bypass"
        headers = {
            "content-type": answer.headers.get("content-type", "application/json"),
            **PRIVATE,
            **told,
            **signals.forwarded(course.why, stored=stored, detail=course.detail, id=miss.id if miss else ""),
            **signals.shortened(course.prompt),
        }
        await self._out.whole(answer.status, headers, body)

    async def _relay(self, answer: aiohttp.ClientResponse) -> None:
        """Event for event; what ends the stream is sent when the answer is stored."""
        recorder, splitter, course = self._ask.wire.recorder(self._ask.call), Splitter(), self._course
        told, limits = told_and_limits(answer.headers)
        headers = {**EVENTS, **PRIVATE, **told}
        headers |= {"x-accel-buffering": "no", **signals.forwarded(course.why, detail=course.detail)}
        headers |= signals.shortened(course.prompt)
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
                    await self._finish(payload, recorder.usage, answer, limits, first)
                if shown:
                    with self._ticket.reading():
                        await self._out.more(b"".join(one.raw for one in shown))
        except (*LOST, ValueError) as error:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error") from error
        course.upstream = self._since_begun()
        if not recorder.ended:
            raise ApiError(502, _BROKEN_OFF, kind="api_error", code="upstream_error")
        await self._out.end()

    async def _finish(
        self,
        payload: bytes | None,
        usage: Usage | None,
        answer: aiohttp.ClientResponse,
        limits: Mapping[str, str],
        first: float | None = None,
    ) -> None:
        admission_of(self._ticket).settle(usage, limits, first_token=first)
        if usage is not None:
            self._services.meters.spent("provider", usage.total)
        if self._course.prompt is not None:
            self._services.meters.spent("compressed", self._course.left_out)
        if self._span is not None:
            self._span.used(usage)
            self._span.note(deployment=self._course.deployment, server=answer.url.host)
        await self._dispatcher.afinish(self._ticket, payload, usage)

    def _since_begun(self) -> float:
        return time.monotonic() - self._begun


def failed_stream(wire: Wire, error: ApiError) -> bytes:
    """The last event of a stream that cannot go on."""
    name = "error" if wire.provider == "anthropic" else None
    return event(wire.error(error), name)


def _lost(wire: Wire, error: BaseException) -> Failure:
    """A connection that could not be made or broke, in the words of an error. The exception's own may name hosts."""
    slow = isinstance(error, TimeoutError)
    said = "The upstream did not answer in time." if slow else "The upstream cannot be reached."
    code = "upstream_timeout" if slow else "upstream_unreachable"
    status = 504 if slow else 502
    return Failure(status, wire.error(ApiError(status, said, kind="api_error", code=code)))
