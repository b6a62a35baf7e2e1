"""Connections to Redis: one blocking client, one asynchronous client per event loop, errors as `StoreError`."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, step
from dispatch_core._keeper import closed_with_loop
from dispatch_core.errors import ConfigError, MissingExtra

try:
    import redis
    import redis.asyncio
    from redis.exceptions import RedisClusterException

    from dispatch_core.stores import _redis_clients as clients
    from dispatch_core.stores._redis_clients import Address, async_like, is_cluster, pool_settings
    from dispatch_core.stores._wire import AsyncWire, Wire, broke_at_once, failed
except ImportError as error:  # pragma: no cover - exercised by the test of an environment without extras
    raise MissingExtra("A Redis store", "redis") from error

if TYPE_CHECKING:
    Client = redis.Redis | redis.RedisCluster
    AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

Command = tuple[Any, ...]
FAILURES = (redis.RedisError, RedisClusterException, OSError)
_Kept = tuple[Any, AsyncGenerator[None, None], asyncio.Semaphore]
_AT_ONCE = 32
_ALONE = ("MGET", "SCAN")
"""Commands that a pipeline of a cluster's client refuses."""


class Connections:
    """Sends commands to one server, one cluster or whom sentinels name, blocking or awaited.

    From a URL every call has a deadline of ``timeout`` seconds. One that broke at once is made once more, for a
    pooled connection that the server closed meanwhile; one that found no answer is not. Callers beyond the pool's 50
    connections wait for one, as long. A client of the caller's keeps the caller's settings. On a cluster, all keys
    of one call must have one hash tag.
    """

    def __init__(
        self, url: str | None, client: Client | None, async_client: AsyncClient | None, *, timeout: float
    ) -> None:
        self._lock = threading.Lock()
        self._async_clients: dict[asyncio.AbstractEventLoop, _Kept] = {}
        self._broken = 0
        self._timeout = timeout
        self._own = client is None
        self._address = self._wire = None
        if client is None:
            if url is None:
                given = "an asynchronous client alone" if async_client is not None else "nothing"
                raise ConfigError(f"a Redis store needs a URL or a synchronous client, got {given}")
            self._address = Address.of(url)
        self.cluster = is_cluster(client) or (self._address is not None and self._address.kind == "cluster")
        # Of a cluster not before it is needed: it connects at once.
        self._client: Any = client if self._address is None else self._lazy_client(self._address)
        if self._address is not None and self._address.kind == "server":
            self._wire = Wire(self._address.url, timeout=timeout, bounded=True)
        self._async_client = async_client
        for given_client in (self._client, async_client):
            if given_client is not None and pool_settings(given_client).get("decode_responses"):
                raise ConfigError("the cache stores bytes: give a Redis client with decode_responses=False")

    def send(self, *commands: Command) -> Flow[list[Any]]:
        """Send commands in one round trip and return their replies as redis-py parses them.

        The first error of a reply is raised. A cluster's client needs round trips of their own for SCAN and MGET.
        """
        try:
            replies: list[Any] = yield from step(self._send, self.asend, commands)
        except FAILURES as error:
            raise failed(error) from error
        return checked(replies)

    def call(self, *commands: Command) -> Flow[list[Any]]:
        """Like `send`, by a shorter way; of replies that have several forms, the server's own may come back."""
        try:
            replies: list[Any] = yield from step(self.exchange, self.asend, commands)
        except FAILURES as error:
            raise failed(error) from error
        return checked(replies)

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, errors that Redis replied among them; other errors as redis-py raises them."""
        return self._send(commands) if self._wire is None else self._wire.exchange(commands)

    async def asend(self, commands: Sequence[Command]) -> list[Any]:
        """Like `exchange`, awaited."""
        client, turns = await self._here()
        broken = self._broken
        async with turns:
            if self._broken != broken:
                # Who waited need not wait once more to learn what those before have learned.
                raise redis.ConnectionError("no answer to those who asked before")
            try:
                return await self._asked(client, commands)
            except FAILURES:
                self._broken += 1
                raise

    def async_wire(self) -> AsyncWire | None:
        """A short way for the running event loop, for whoever has one round trip at a time; None if there is none."""
        if self._address is None or self._wire is None or self._async_client is not None:
            return None
        return AsyncWire(self._address.url, timeout=self._timeout)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        if self._own and self._client is not None:
            clients.close(self._client)

    async def aclose(self) -> None:
        with self._lock:
            _, keeper, _ = self._async_clients.pop(asyncio.get_running_loop(), (None, None, None))
            self._drop_ended()
        if keeper is not None:
            await keeper.aclose()
        self.close()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        began = time.monotonic()
        try:
            return _sent(self._known(), commands)
        except FAILURES as error:
            if not self._own or not broke_at_once(error, began, self._timeout):
                raise
            return _sent(self._known(), commands)

    async def _asked(self, client: Any, commands: Sequence[Command]) -> list[Any]:
        began = time.monotonic()
        try:
            return await _asent(client, commands)
        except FAILURES as error:
            if not self._own or self._async_client is not None or not broke_at_once(error, began, self._timeout):
                raise
            return await _asent(client, commands)

    def _known(self) -> Any:
        """The client for threads."""
        if self._client is None and self._address is not None:
            with self._lock:
                if self._client is None:
                    self._client = self._address.client(self._timeout)
        return self._client

    async def _here(self) -> tuple[Any, AbstractAsyncContextManager[Any]]:
        """The asynchronous client of the running loop, and the turns it is used in.

        Its connections cannot serve another loop. Of a thousand calls at once most wait here, as long as it takes: a
        pool would give them up after the deadline of a call, and a server that is busy is not one that fails.
        """
        if self._async_client is not None:
            return self._async_client, nullcontext()
        loop = asyncio.get_running_loop()
        kept = self._async_clients.get(loop)
        if kept is None:
            client = async_like(self._client) if self._address is None else self._address.async_client(self._timeout)
            keeper = closed_with_loop(partial(clients.aclose, client))
            await anext(keeper)
            with self._lock:
                self._drop_ended()
                kept = self._async_clients.setdefault(loop, (client, keeper, asyncio.Semaphore(_AT_ONCE)))
            if kept[1] is not keeper:
                # Another task was faster.
                await keeper.aclose()
        return kept[0], kept[2]

    def _drop_ended(self) -> None:
        """Let go of the clients of loops that are closed: each holds its loop and its sockets. Needs the lock."""
        for loop in [loop for loop in self._async_clients if loop.is_closed()]:
            del self._async_clients[loop]

    def _lazy_client(self, address: Address) -> Any:
        return None if address.kind == "cluster" else address.client(self._timeout)


def _sent(client: Any, commands: Sequence[Command]) -> list[Any]:
    if not _together(client, commands):
        return [_caught(client, command) for command in commands]
    pipeline = client.pipeline(**_plain(client))
    for command in commands:
        pipeline.execute_command(*command)
    return _arrived(pipeline.execute(raise_on_error=False))


async def _asent(client: Any, commands: Sequence[Command]) -> list[Any]:
    if not _together(client, commands):
        return [await _acaught(client, command) for command in commands]
    pipeline = client.pipeline(**_plain(client))
    for command in commands:
        pipeline.execute_command(*command)
    return _arrived(await pipeline.execute(raise_on_error=False))


def _arrived(replies: Sequence[Any]) -> list[Any]:
    """A cluster's pipeline puts errors of a connection among the replies."""
    for reply in replies:
        if isinstance(reply, redis.ConnectionError | redis.TimeoutError):
            raise reply
    return list(replies)


def checked(replies: list[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise failed(reply) from reply
    return replies


def _together(client: Any, commands: Sequence[Command]) -> bool:
    """Whether the commands go through one pipeline."""
    if len(commands) == 1:
        return False
    return not is_cluster(client) or not any(command[0] in _ALONE for command in commands)


def _plain(client: Any) -> dict[str, Any]:
    """A cluster's pipeline is no transaction unless told so, and refuses to be told not to be."""
    return {} if is_cluster(client) else {"transaction": False}


def _caught(client: Any, command: Command) -> Any:
    try:
        return _unwrapped(client.execute_command(*command, **_target(client, command)))
    except redis.ResponseError as error:
        return error


async def _acaught(client: Any, command: Command) -> Any:
    if is_cluster(client):
        await client.initialize()
    try:
        return _unwrapped(await client.execute_command(*command, **_target(client, command)))
    except redis.ResponseError as error:
        return error


def _target(client: Any, command: Command) -> dict[str, Any]:
    """SCAN names no key, so that a cluster's client would ask every node. All our keys lie on one."""
    if command[0] != "SCAN" or not is_cluster(client):
        return {}
    pattern = command[command.index("MATCH") + 1]
    return {"target_nodes": client.get_node_from_key(re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL))}


def _unwrapped(reply: Any) -> Any:
    """A cluster's client answers a SCAN with a cursor for every node it asked, here one."""
    if isinstance(reply, tuple) and len(reply) == 2 and isinstance(reply[0], dict):
        [cursor] = reply[0].values()
        return cursor, reply[1]
    return reply
