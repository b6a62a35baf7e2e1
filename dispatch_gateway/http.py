"""The small part of ASGI that a proxy needs: bodies with a limit, answers in one piece or many, callers who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from dispatch_gateway.errors import ApiError, Gone

PRIVATE = {"cache-control": "private, no-store"}
JSON = {"content-type": "application/json"}
LOST = "dispatch.lost"
"""An ASGI extension: a set of functions that are called when the connection is lost."""

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by their names in lower case; of one that comes twice, both, with a comma between."""
    headers: dict[str, str] = {}
    for raw, text in scope["headers"]:
        name, value = raw.decode("latin-1").lower(), text.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def body_of(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The whole body. Raises `ApiError` 413 beyond ``most`` bytes, `Gone` if the caller leaves."""
    told = headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most:
        raise _too_large(most)
    pieces, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise _too_large(most)
        pieces.append(piece)
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Connected:
    """Cancels what is inside when the caller leaves, and raises `Gone` instead.

    A server whose scope has the extension `LOST` calls back; on any other a task listens, which is dearer.
    """

    __slots__ = ("_gone", "_lost", "_receive", "_task", "_watcher")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._lost: set[Callable[[], None]] | None = scope.get("extensions", {}).get(LOST)
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._lost is None:
            self._watcher = asyncio.create_task(self._watch())
        else:
            self._lost.add(self._leave)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._lost is not None:
            self._lost.discard(self._leave)
        elif self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise Gone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()


class Deadlines:
    """Ends what takes longer than so many ``seconds`` with a `TimeoutError`: ``with deadlines.started():`` in a task.

    All take the same time, so who began first is late first, and one timer is enough for all.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Deadline, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def started(self) -> _Deadline:
        return _Deadline(self)

    def add(self, deadline: _Deadline) -> None:
        loop = asyncio.get_running_loop()
        self._running[deadline] = until = loop.time() + self._seconds
        if self._loop is not loop:
            # No timer runs, or one of a loop that will not run again.
            self._loop = loop
            loop.call_at(until, self._look, loop)

    def remove(self, deadline: _Deadline) -> None:
        self._running.pop(deadline, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for deadline, until in tuple(self._running.items()):
            if until > now:
                loop.call_at(until, self._look, loop)
                return
            self.remove(deadline)
            deadline.miss()
        self._loop = None


class _Deadline:
    """Of one task, as `asyncio.timeout`, which starts a timer for each."""

    __slots__ = ("_cancelling", "_late", "_task", "_with")

    def __init__(self, deadlines: Deadlines) -> None:
        self._with = deadlines
        self._late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._with.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._with.remove(self)
        if self._late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def miss(self) -> None:
        self._late = True
        self._task.cancel()


class Out:
    """The answer to one request. ``status`` is 0 until it has begun."""

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        pairs = [*_pairs(headers), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": _pairs(headers)})

    async def more(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


def _pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"The body is larger than {most} bytes.", code="request_too_large")
