"""Reads of string values, and changes: what waits on one event loop is taken together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import NoScriptError

from dispatch_core._flow import Flow, step
from dispatch_core.stores._lines import Lines, Send
from dispatch_core.stores._redis import FAILURES, Command, Connections, checked
from dispatch_core.stores._wire import failed

if TYPE_CHECKING:
    from dispatch_core.stores._redis_store import Script

_MOST_KEYS = 512
_MOST_BYTES, _BYTES_OF_A_COMMAND = 1 << 20, 4096

Tail = Callable[[], tuple[Any, Command]]


class Reply(NamedTuple):
    """What one round trip brought: values by key (None for what is not there or is no string), and of those who also
    asked for the tail the reply to its command, and the mark that was made together with the command.

    Of a reply that answers several tasks, ``shared`` holds what one of them has begun for all."""

    values: dict[str, bytes | None]
    mark: Any = None
    tail: Any = None
    shared: list[asyncio.Task[Any]] | None = None


class Reads:
    """Reads keys with MGET; on request together with the ``tail``, a command that is made when it is sent.

    The tail is read after the values. Tasks ask together, threads by themselves. Raises `StoreError`.
    """

    def __init__(self, connections: Connections, tail: Tail) -> None:
        self._connections = connections
        self._tail = tail
        self._lines: Lines[tuple[Sequence[str], bool], Reply] = Lines(
            connections, self._fetch, size=lambda question: len(question[0]), most=_MOST_KEYS
        )
        # A line of their own, with less to do for each.
        self._values: Lines[str, bytes | None] = Lines(connections, _values, size=lambda key: 1, most=_MOST_KEYS)

    def read(self, keys: Sequence[str], *, tail: bool = False) -> Flow[Reply]:
        return (yield from step(self.now, self.anow, keys, tail))

    def value(self, key: str) -> bytes | None:
        """Of one key, by the shortest way."""
        try:
            [value] = checked(self._connections.exchange((("MGET", key),)))[0]
        except FAILURES as error:
            raise failed(error) from error
        found: bytes | None = value
        return found

    def avalue(self, key: str) -> Awaitable[bytes | None]:
        return self._values.ask(key)

    def now(self, keys: Sequence[str], tail: bool = False) -> Reply:
        mark, command = self._tail() if tail else (None, None)
        try:
            replies = self._connections.exchange(self._commands(keys, command))
        except FAILURES as error:
            raise failed(error) from error
        return _reply(keys, replies, mark, tail)

    async def anow(self, keys: Sequence[str], tail: bool = False) -> Reply:
        return await self._lines.ask((keys, tail))

    async def aclose(self) -> None:
        """Close what belongs to the running event loop."""
        await self._lines.aclose()
        await self._values.aclose()

    async def _fetch(self, send: Send, asked: Sequence[tuple[Sequence[str], bool]]) -> Sequence[Reply]:
        tail = any(wanted for _, wanted in asked)
        keys = list(dict.fromkeys(key for wanted, _ in asked for key in wanted)) if len(asked) > 1 else asked[0][0]
        mark, command = self._tail() if tail else (None, None)
        reply = _reply(keys, await send(self._commands(keys, command)), mark, tail)
        return [reply] if len(asked) == 1 else [reply._replace(shared=[])] * len(asked)

    def _commands(self, keys: Sequence[str], command: Command | None) -> list[Command]:
        if command is None:
            return [("MGET", *keys)]
        # A cluster's client takes no MGET into a pipeline.
        return [*(("GET", key) for key in keys), command] if self._connections.cluster else [("MGET", *keys), command]


class Changes:
    """Sends commands; those of all tasks on one event loop together, in the order in which they came.

    Scripts are called by name; one that the server does not know (any more) is sent once more with its text. A reply
    that is an error is its asker's alone. Raises `StoreError`.
    """

    def __init__(self, connections: Connections, scripts: Iterable[Script]) -> None:
        self._connections = connections
        self._texts = {script.sha: script.text for script in scripts}
        self._lines: Lines[Sequence[Command], list[Any]] = Lines(
            connections, _sent, size=lambda commands: sum(map(_size, commands)), most=_MOST_BYTES
        )

    def send(self, *commands: Command) -> Flow[list[Any]]:
        replies = yield from step(self.now, self.anow, commands)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            whole = [("EVAL", self._texts[commands[place][1]], *commands[place][2:]) for place in unknown]
            again = yield from step(self.now, self.anow, whole)
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        return checked(replies)

    def now(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._connections.exchange(commands)
        except FAILURES as error:
            raise failed(error) from error

    async def anow(self, commands: Sequence[Command]) -> list[Any]:
        return await self._lines.ask(commands)

    async def aclose(self) -> None:
        """Close what belongs to the running event loop."""
        await self._lines.aclose()


async def _values(send: Send, keys: Sequence[str]) -> Sequence[bytes | None]:
    once = list(dict.fromkeys(keys))
    [values] = checked(await send((("MGET", *once),)))
    found: list[bytes | None] = values
    if len(once) == len(keys):
        return found
    by_key = dict(zip(once, found, strict=True))
    return [by_key[key] for key in keys]


async def _sent(send: Send, asked: Sequence[Sequence[Command]]) -> list[list[Any]]:
    replies = iter(await send([command for commands in asked for command in commands]))
    return [[next(replies) for _ in commands] for commands in asked]


def _size(command: Command) -> int:
    return _BYTES_OF_A_COMMAND + sum(len(word) for word in command if isinstance(word, bytes))


def _reply(keys: Sequence[str], replies: list[Any], mark: Any, tail: bool) -> Reply:
    checked(replies)
    values = replies[0] if isinstance(replies[0], list) else replies[: len(keys)]
    return Reply(dict(zip(keys, values, strict=True)), mark, replies[-1] if tail else None)
