"""What waits on one event loop travels together: one round trip is under way, the rest goes with the next."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from dispatch_core._keeper import closed_with_loop
from dispatch_core.stores._redis import FAILURES, Command, Connections
from dispatch_core.stores._wire import AsyncWire, failed

Q = TypeVar("Q")
A = TypeVar("A")

Send = Callable[[Sequence[Command]], Awaitable[list[Any]]]
Fetch = Callable[[Send, Sequence[Q]], Awaitable[Sequence[A | Exception]]]
"""Answers questions, one by one, with one round trip that it may send."""


class Lines(Generic[Q, A]):
    """A line for each event loop.

    Together go questions whose ``size`` comes to ``most`` at most, but one goes in any case. Nobody is answered by a
    round trip that began before the question. An asker who gives up leaves the others alone; a round trip that fails,
    fails for all whom it was to answer. Raises `StoreError`.
    """

    def __init__(self, connections: Connections, fetch: Fetch[Q, A], *, size: Callable[[Q], int], most: int) -> None:
        self._connections = connections
        self._fetch = fetch
        self._size = size
        self._most = most
        self._lock = threading.Lock()
        self._lines: dict[asyncio.AbstractEventLoop, _Line[Q, A]] = {}

    def ask(self, question: Q) -> Awaitable[A]:
        """To be awaited at once. Where others are under way already, it is no more than a place in their line."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            return self._first(loop, question)
        return line.queued(loop, question) if line.busy else line.alone(question)

    async def _first(self, loop: asyncio.AbstractEventLoop, question: Q) -> A:
        line = self._new_line(loop)
        if line.keeper is not None:
            await anext(line.keeper, None)
        return await (line.queued(loop, question) if line.busy else line.alone(question))

    async def aclose(self) -> None:
        """Close what belongs to the running event loop."""
        with self._lock:
            line = self._lines.pop(asyncio.get_running_loop(), None)
            self._drop_ended()
        if line is not None and line.keeper is not None:
            await line.keeper.aclose()

    def _new_line(self, loop: asyncio.AbstractEventLoop) -> _Line[Q, A]:
        with self._lock:
            self._drop_ended()
            wire = self._connections.async_wire()
            send = self._connections.asend if wire is None else wire.exchange
            return self._lines.setdefault(loop, _Line(self._fetch, send, wire, self._size, self._most))

    def _drop_ended(self) -> None:
        """Let go of loops that are closed. Needs the lock."""
        for ended in [known for known in self._lines if known.is_closed()]:
            del self._lines[ended]


class _Line(Generic[Q, A]):
    """Those who wait on one event loop. Only that loop's thread is ever here."""

    def __init__(
        self, fetch: Fetch[Q, A], send: Send, wire: AsyncWire | None, size: Callable[[Q], int], most: int
    ) -> None:
        self._fetch = fetch
        self._send = send
        self.keeper = None if wire is None else closed_with_loop(wire.close)
        self._size = size
        self._most = most
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self.busy = False
        self._pump: asyncio.Task[None] | None = None

    def queued(self, loop: asyncio.AbstractEventLoop, question: Q) -> asyncio.Future[A]:
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((question, answer))
        return answer

    async def alone(self, question: Q) -> A:
        if self.busy:
            # Since the line was looked at, somebody was faster.
            return await self.queued(asyncio.get_running_loop(), question)
        # Who finds nobody there goes at once; those who came meanwhile are somebody else's to serve.
        self.busy = True
        try:
            [reply] = await self._fetch(self._send, (question,))
        except FAILURES as error:
            raise failed(error) from error
        finally:
            if self._waiting:
                self._pump = asyncio.get_running_loop().create_task(self._serve())
            else:
                self.busy = False
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _serve(self) -> None:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        try:
            while self._waiting:
                batch = self._next()
                if batch:
                    await self._answer(batch)
                    # Who was answered and asks again at once need not go alone.
                    await asyncio.sleep(0)
        finally:
            # Cancelled with its loop, it leaves nobody waiting.
            for _, answer in (*batch, *self._waiting):
                answer.cancel()
            self._waiting.clear()
            self.busy = False

    def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch: list[tuple[Q, asyncio.Future[A]]] = []
        size = 0
        while self._waiting:
            question, answer = self._waiting[0]
            size += self._size(question)
            if batch and size > self._most:
                break
            self._waiting.popleft()
            if not answer.done():
                batch.append((question, answer))
        return batch

    async def _answer(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        replies: Sequence[A | Exception]
        try:
            replies = await self._fetch(self._send, [question for question, _ in batch])
        except Exception as error:
            replies = [copied(error) for _ in batch]
        for (_, answer), reply in zip(batch, replies, strict=True):
            if answer.done():
                continue
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)


def copied(error: Exception) -> Exception:
    """One for each asker: raised at once in many places, they would share one traceback."""
    cause = error if isinstance(error, FAILURES) else error.__cause__
    if cause is None:
        return error
    mine = failed(cause)
    mine.__cause__ = cause
    return mine
