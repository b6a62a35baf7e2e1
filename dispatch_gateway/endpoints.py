"""The endpoints that go through an `Exchange`."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from dispatch_core.errors import LimitExceeded, RequestTooLarge
from dispatch_core.limit import TokenLimiter
from dispatch_gateway import signals
from dispatch_gateway.admission import OutOfBudget
from dispatch_gateway.ask import Ask, Course
from dispatch_gateway.control import control_of
from dispatch_gateway.errors import NO_RETRY, ApiError, Gone
from dispatch_gateway.exchange import Exchange
from dispatch_gateway.forward import failed_stream
from dispatch_gateway.http import JSON, PRIVATE, Connected, Out, body_of, headers_of
from dispatch_gateway.logs import log_request
from dispatch_gateway.service import Service
from dispatch_gateway.tenants import Tenant
from dispatch_gateway.upstream import asked_headers
from dispatch_gateway.wire import Wire, parsed

_LAST_WORDS = 1.0

log = logging.getLogger("dispatch_gateway")


class Endpoint:
    """One wire format of a gateway, as an ASGI application."""

    def __init__(self, service: Service, wire: Wire) -> None:
        self._service = service
        self._wire = wire

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, out, begun = self._service, Out(send), time.monotonic()
        done = _Done()
        service.enter()
        try:
            with service.deadlines.started():
                await self._answer(scope, receive, out, done)
        except Gone:
            done.gone = True
        except asyncio.CancelledError:
            # Not by the caller: the server stops, and does not wait any longer.
            await self._refuse(out, _stopping(), done)
            raise
        except Exception as error:
            await self._refuse(out, _told(error, done), done)
        finally:
            service.leave()
            self._note(out, done, time.monotonic() - begun)

    async def _answer(self, scope: Scope, receive: Receive, out: Out, done: _Done) -> None:
        service, wire, headers = self._service, self._wire, headers_of(scope)
        if service.draining:
            raise _stopping()
        done.tenant = tenant = service.door.tenant(headers)
        _check_type(headers)
        raw = await body_of(receive, headers, service.settings.max_body)
        with Connected(scope, receive):
            body = parsed(raw)
            call, control = wire.read(body, raw), control_of(headers, body)
            pool = service.pool(call.model, wire.provider, tenant)
            asked = asked_headers(headers)
            shortener = service.compression.of(call.model)
            ask = Ask(wire, call, control, tenant, service.account(tenant), pool, asked, headers, shortener)
            done.course = Course()
            done.model, done.limiters = call.model, (*ask.account.limiters, *pool[0].limiters)
            await Exchange(service.services, ask, out, done.course).run()

    async def _refuse(self, out: Out, error: ApiError, done: _Done) -> None:
        done.failed = True
        if done.course is not None and not out.status:
            done.course.outcome = "rejected"
        with suppress(TimeoutError):
            # Of a caller who does not read, the connection is closed.
            async with asyncio.timeout(_LAST_WORDS):
                if out.status:
                    await out.more(failed_stream(self._wire, error))
                    await out.end()
                else:
                    headers = {**JSON, **PRIVATE, **error.headers}
                    await out.whole(error.status, headers, self._wire.error(error))

    def _note(self, out: Out, done: _Done, seconds: float) -> None:
        course, meters = done.course, self._service.meters
        if course is not None or not done.gone:
            meters.ended("rejected" if course is None else course.outcome)
        if course is not None and out.status and not done.failed:
            # Of what failed nobody knows how long it waited, and where.
            meters.overhead(seconds - course.upstream - course.queued)
        log_request(
            self._wire.name,
            course,
            status=out.status,
            seconds=seconds,
            tenant=done.tenant,
            model=done.model,
            gone=done.gone,
        )


class _Done:
    """What is known of a request by the time it ends."""

    __slots__ = ("course", "failed", "gone", "limiters", "model", "tenant")

    def __init__(self) -> None:
        self.course: Course | None = None
        self.tenant = Tenant()
        self.model = ""
        self.gone = self.failed = False
        self.limiters: tuple[TokenLimiter, ...] = ()


def _check_type(headers: Mapping[str, str]) -> None:
    """JSON only: what a form on a web page may send is none."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, "Send JSON, with 'content-type: application/json'.", code="unsupported_media_type")


def _stopping() -> ApiError:
    said = "The gateway is shutting down."
    return ApiError(503, said, kind="api_error", code="shutting_down", headers=signals.retry(1.0))


def _told(error: Exception, done: _Done) -> ApiError:
    """What the caller is told of an exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OutOfBudget):
        headers = {**signals.busy(done.limiters, error.retry_after), **NO_RETRY}
        said = "You exceeded the budget of this key."
        return ApiError(429, said, kind="insufficient_quota", code="insufficient_quota", headers=headers)
    if isinstance(error, LimitExceeded):
        headers = signals.busy(done.limiters, error.retry_after)
        said = f"Rate limit reached: {error}."
        return ApiError(429, said, kind="rate_limit_error", code="rate_limit_exceeded", headers=headers)
    if isinstance(error, RequestTooLarge):
        return ApiError(413, str(error), code="request_too_large", headers=NO_RETRY)
    if isinstance(error, TimeoutError):
        return ApiError(504, "The request took too long.", kind="api_error", code="timeout")
    # A foreign exception may quote the prompt: what is logged is its name and where it was raised.
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    log.error("unexpected %s in the gateway, at %s", type(error).__name__, where)
    return ApiError(500, "The gateway had an error.", kind="api_error", code="internal_error")
