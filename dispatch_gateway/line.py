"""One connection to the gateway, with bounds on what uvicorn leaves open: heads without an end, and callers who send
no whole request, or do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from dispatch_gateway import openai
from dispatch_gateway.errors import ApiError
from dispatch_gateway.http import LOST
from dispatch_gateway.messages import MessagesWire

_LONGEST_HEAD = 64 * 1024
_LONGEST_FRAMES = 512 * 1024
_PER_BYTE = 8
"""A chunk of one byte has five more around it."""

_PATIENCE = 30.0
_VERSION, _LENGTH, _END = b"HTTP/1.1 ", b"\r\ncontent-length: ", b"\r\n\r\n"


class Joined:
    """A transport on which the head of an answer of a known length waits for what comes after it: both in one
    packet, which wakes the caller once."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(_END) and data.startswith(_VERSION) and _LENGTH in data:
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Line(HttpToolsProtocol):
    """What is no HTTP is refused as an error of the API. ``ended_if_still`` is to be called every now and then."""

    url = b""
    _head = _received = _body = 0
    _seen: tuple[Any, ...] | None = None
    _since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = self._joined = Joined(transport)  # type: ignore[assignment]
        self._lost: set[Callable[[], None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        for leave in tuple(self._lost):
            leave()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        # An answer to HEAD has no body.
        self._joined.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        # The parser keeps a line until it ends.
        if self._received > _LONGEST_FRAMES + _PER_BYTE * self._body and not self.transport.is_closing():
            self._refuse(431, "The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._head = self._received = self._body = 0
        super().on_message_begin()
        self.scope["extensions"] = {LOST: self._lost}  # type: ignore[dict-item]

    def on_url(self, url: bytes) -> None:
        self._weigh(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._weigh(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._received = self._body = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head > _LONGEST_HEAD:
            self._refuse(431, "The head of the request is too large.")
        else:
            self._refuse(400, "This is no valid HTTP request.")

    def ended_if_still(self, now: float, total: float) -> None:
        """Break the connection when it made no progress for too long: ``now`` and ``total``, the deadline of a
        request, are in seconds."""
        state = self._waiting_for()
        if state is None or state != self._seen:
            self._seen, self._since = state, now
            return
        if now - self._since >= (total if state[0] == "reader" else min(total, _PATIENCE)):
            self.transport.abort()

    def _waiting_for(self) -> tuple[Any, ...] | None:
        """What it takes the caller to go on; None while it is the gateway's turn, or nobody's."""
        if self.transport.is_closing():
            # Until all is read that was written.
            return ("closing",)
        if self.flow.write_paused:
            return "reader", self.cycle, self.transport.get_write_buffer_size()
        if (self.cycle is None or self.cycle.response_complete) and self.timeout_keep_alive_task is None:
            return "request", self.cycle
        return None

    def _weigh(self, size: int) -> None:
        self._head += size
        if self._head > _LONGEST_HEAD:
            # The parser tells of it as it does of what it cannot read.
            raise ValueError("the head is too large")

    def _refuse(self, status: int, said: str) -> None:
        error = ApiError(status, said)
        body = MessagesWire().error(error) if self.url.startswith(b"/v1/messages") else openai.error(error)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        if not (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
