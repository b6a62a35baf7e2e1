"""Reads of string values: what waits on one event loop is taken together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dispatch_core._flow import Flow, step
from dispatch_core.stores._redis import FAILURES, Command, Connections
from dispatch_core.stores._wire import AsyncWire, failed

_ENOUGH_KEYS = 512

Tail = Callable[[], tuple[Any, Command]]


class Reply(NamedTuple):
    """What one round trip brought: values by key (None for what is not there or is no string), and of those who also
    asked for the tail the reply to its command, and the mark that was made together with the command."""

    values: dict[str, bytes | None]
    mark: Any = None
    tail: Any = None


class Reads:
    """Reads keys with MGET; on request together with the ``tail``, a command that is made when it is sent.

    Of all askers on one event loop, one round trip is under way; what waits meanwhile goes with the next. The tail is
    read after the values, and nobody is answered by a round trip that began before the question. An asker who gives
    up leaves the others alone; a round trip that fails, fails for all whom it was to answer. Threads ask by
    themselves. Raises `StoreError`.
    """

    def __init__(self, connections: Connections, tail: Tail) -> None:
        self._connections = connections
        self._tail = tail
        self._lock = threading.Lock()
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}

    def read(self, keys: Sequence[str], *, tail: bool = False) -> Flow[Reply]:
        return (yield from step(self.now, self.anow, keys, tail))

    def now(self, keys: Sequence[str], tail: bool = False) -> Reply:
        mark, command = self._tail() if tail else (None, None)
        try:
            replies = self._connections.exchange(self._commands(keys, command))
        except FAILURES as error:
            raise failed(error) from error
        return _reply(keys, replies, mark, tail)

    async def anow(self, keys: Sequence[str], tail: bool = False) -> Reply:
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._new_line(loop)
        return await line.ask(keys, tail)

    async def aclose(self) -> None:
        """Close what belongs to the running event loop."""
        with self._lock:
            line = self._lines.pop(asyncio.get_running_loop(), None)
            self._drop_ended()
        if line is not None and line.wire is not None:
            await line.wire.close()

    async def _afetch(self, line: _Line, keys: Sequence[str], tail: bool) -> Reply:
        mark, command = self._tail() if tail else (None, None)
        commands = self._commands(keys, command)
        try:
            exchange = self._connections.asend if line.wire is None else line.wire.exchange
            replies = await exchange(commands)
        except FAILURES as error:
            raise failed(error) from error
        return _reply(keys, replies, mark, tail)

    def _commands(self, keys: Sequence[str], command: Command | None) -> list[Command]:
        if command is None:
            return [("MGET", *keys)]
        # A cluster's client takes no MGET into a pipeline.
        return [*(("GET", key) for key in keys), command] if self._connections.cluster else [("MGET", *keys), command]

    def _new_line(self, loop: asyncio.AbstractEventLoop) -> _Line:
        with self._lock:
            self._drop_ended()
            return self._lines.setdefault(loop, _Line(self._afetch, self._connections.async_wire()))

    def _drop_ended(self) -> None:
        """Let go of loops that are closed. Needs the lock."""
        for ended in [known for known in self._lines if known.is_closed()]:
            del self._lines[ended]


class _Asked(NamedTuple):
    keys: Sequence[str]
    tail: bool
    answer: asyncio.Future[Reply]


class _Line:
    """Those who wait on one event loop. Only that loop's thread is ever here."""

    def __init__(self, fetch: Callable[[_Line, Sequence[str], bool], Any], wire: AsyncWire | None) -> None:
        self._fetch = fetch
        self.wire = wire
        self._waiting: deque[_Asked] = deque()
        self._busy = False
        self._pump: asyncio.Task[None] | None = None

    async def ask(self, keys: Sequence[str], tail: bool) -> Reply:
        if self._busy:
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Asked(keys, tail, answer))
            return await answer
        # Who finds nobody there goes at once; those who came meanwhile are somebody else's to serve.
        self._busy = True
        try:
            reply: Reply = await self._fetch(self, keys, tail)
            return reply
        finally:
            if self._waiting:
                self._pump = asyncio.get_running_loop().create_task(self._serve())
            else:
                self._busy = False

    async def _serve(self) -> None:
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, keys = self._next()
                if batch:
                    await self._answer(batch, keys)
        finally:
            # Cancelled with its loop, it leaves nobody waiting.
            for asked in (*batch, *self._waiting):
                asked.answer.cancel()
            self._waiting.clear()
            self._busy = False

    def _next(self) -> tuple[list[_Asked], list[str]]:
        batch: list[_Asked] = []
        keys: dict[str, None] = {}
        while self._waiting and len(keys) < _ENOUGH_KEYS:
            asked = self._waiting.popleft()
            if not asked.answer.done():
                batch.append(asked)
                keys.update(dict.fromkeys(asked.keys))
        return batch, list(keys)

    async def _answer(self, batch: Sequence[_Asked], keys: Sequence[str]) -> None:
        try:
            reply = await self._fetch(self, keys, any(asked.tail for asked in batch))
        except Exception as error:
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(_copy(error))
        else:
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_result(reply)


def _copy(error: Exception) -> Exception:
    """One for each asker: raised at once in many places, they would share one traceback."""
    if error.__cause__ is None:
        return error
    mine = failed(error.__cause__)
    mine.__cause__ = error.__cause__
    return mine


def _reply(keys: Sequence[str], replies: Sequence[Any], mark: Any, tail: bool) -> Reply:
    for reply in replies:
        if isinstance(reply, Exception):
            raise failed(reply) from reply
    values = replies[0] if isinstance(replies[0], list) else replies[: len(keys)]
    return Reply(dict(zip(keys, values, strict=True)), mark, replies[-1] if tail else None)
