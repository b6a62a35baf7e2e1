"""One admitted request on its way out: each token when it is due, unless a fault strikes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from dispatch_core.simulate.dialect import Dialect, Exchange
from dispatch_core.simulate.faults import Fault
from dispatch_core.simulate.request import ApiError
from dispatch_core.simulate.text import Pace, split


class BrokenOff(ConnectionError):
    """The simulator ended the connection on purpose."""


@dataclass(slots=True)
class Delivery:
    """An answer that is due. ``start`` is an instant of the monotonic clock; ``fault`` may be struck once.

    ``made`` counts the completion tokens of each choice made so far.
    """

    dialect: Dialect
    exchange: Exchange
    pace: Pace
    headers: dict[str, str]
    start: float
    fault: Fault | None = None
    made: int = 0

    @property
    def produced(self) -> int:
        """Completion tokens of all choices."""
        return self.made * self.exchange.chat.n

    def take_fault(self) -> Fault | None:
        """The fault, once, if enough tokens are made for it to strike."""
        fault = self.fault
        if fault is None or fault.kind == "slow_first_token":
            return None
        if self.made < min(fault.after_tokens, self.exchange.reply.tokens):
            return None
        self.fault = None
        return fault


def server_error(fault: Fault) -> ApiError:
    """What an ``error`` says."""
    kind = "overloaded_error" if fault.status == 529 else "server_error"
    return ApiError(fault.status, "The server had an error while processing your request.", kind=kind)


async def silence(seconds: float | None) -> None:
    """Say nothing for `seconds`; None: until the client leaves or the server stops."""
    await (asyncio.sleep(seconds) if seconds is not None else asyncio.get_running_loop().create_future())


def hang_up(request: web.Request) -> BrokenOff:
    """End the connection behind what has been written."""
    if request.transport is not None:
        request.transport.close()
    return BrokenOff("broken off on demand")


async def _until(delivery: Delivery, tokens: int) -> None:
    """Sleep until `tokens` tokens of each choice are due."""
    delay = delivery.start + delivery.pace.due(tokens) - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)


async def _make(delivery: Delivery, tokens: int) -> None:
    """Wait until `tokens` tokens of each choice are made. A client that leaves before pays for those made by then."""
    try:
        await _until(delivery, tokens)
    except asyncio.CancelledError:
        spent = time.monotonic() - delivery.start - delivery.pace.first
        made = int(min(tokens, spent * delivery.pace.rate)) if spent > 0 else 0
        delivery.made = max(delivery.made, made)
        raise
    delivery.made = tokens


async def whole(request: web.Request, delivery: Delivery) -> web.Response:
    """One JSON body, when its last token is due."""
    total = delivery.exchange.reply.tokens
    if delivery.fault is not None:
        await _make(delivery, min(delivery.fault.after_tokens, total))
        await _strike(request, delivery)
    await _make(delivery, total)
    return web.json_response(delivery.dialect.whole(delivery.exchange), headers=delivery.headers)


async def _strike(request: web.Request, delivery: Delivery) -> None:
    """Do what the fault does, if its time has come. Raises where the answer ends with it."""
    fault = delivery.take_fault()
    if fault is None:
        return
    if fault.kind == "stall":
        began = time.monotonic()
        await silence(fault.seconds)
        delivery.start += time.monotonic() - began
    elif fault.kind == "break":
        raise hang_up(request)
    else:
        raise server_error(fault)


class _Stream(web.StreamResponse):
    """A response whose last bytes leave when its handler is done: who has read the end finds the request counted."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self.ending = b""

    async def write_eof(self, data: bytes = b"") -> None:
        ending, self.ending = self.ending, b""
        await super().write_eof(ending + data)


async def stream(request: web.Request, delivery: Delivery) -> web.StreamResponse:
    """Server-sent events, each when its tokens are due."""
    await _until(delivery, 0)
    await _strike(request, delivery)
    response = _Stream({**delivery.headers, "cache-control": "no-cache"})
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await response.prepare(request)
    try:
        await _pour(request, response, delivery)
    except ApiError as error:
        response.ending = delivery.dialect.broken(error).encode()
    else:
        response.ending = delivery.dialect.ending(delivery.exchange).encode()
    return response


async def _pour(request: web.Request, response: web.StreamResponse, delivery: Delivery) -> None:
    """All events but the ending; those due at the same time leave in one write."""
    waiting: list[str] = []

    async def flush() -> None:
        await response.write("".join(waiting).encode())
        waiting.clear()

    for tokens, events in _events(delivery):
        if delivery.start + delivery.pace.due(delivery.made) > time.monotonic():
            await flush()
            await _until(delivery, delivery.made)
        waiting.append(events)
        delivery.made += tokens
        if delivery.fault is not None:
            await flush()
            await _strike(request, delivery)
    await flush()
    await _until(delivery, delivery.exchange.reply.tokens)


def _events(delivery: Delivery) -> Iterator[tuple[int, str]]:
    """Tokens and events of the opening and of every piece, for all choices."""
    dialect, exchange = delivery.dialect, delivery.exchange
    yield 0, dialect.opening(exchange)
    for piece in split(exchange.reply.text):
        yield piece.tokens, dialect.piece(exchange, piece.text)
