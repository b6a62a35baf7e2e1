"""Connections to Redis: one blocking client, one asynchronous client per event loop, errors as `StoreError`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, step
from dispatch_core.errors import ConfigError, MissingExtra, StoreError

try:
    import redis
    import redis.asyncio
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:  # pragma: no cover - exercised by the test of an environment without extras
    raise MissingExtra("A Redis store", "redis") from error

if TYPE_CHECKING:
    Client = redis.Redis
    AsyncClient = redis.asyncio.Redis

Command = tuple[Any, ...]


class Connections:
    """Sends commands to one server, blocking or awaited.

    From a URL every call has a deadline of ``timeout`` seconds and one retry at once, for a pooled connection that
    the server closed meanwhile; callers beyond the pool's 50 connections wait for one, as long. A client of the
    caller's keeps the caller's settings.
    """

    def __init__(
        self, url: str | None, client: Client | None, async_client: AsyncClient | None, *, timeout: float
    ) -> None:
        self._lock = threading.Lock()
        self._async_clients: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        self._url = url
        self._timeout = timeout
        self._own = client is None
        self._client = client or self._sync_client(async_client)
        self._async_client = async_client
        for given in (self._client, async_client):
            if given is not None and _pool_settings(given).get("decode_responses"):
                raise ConfigError("the cache stores bytes: give a Redis client with decode_responses=False")

    def send(self, *commands: Command) -> Flow[list[Any]]:
        """Send commands in one round trip and return their replies; the first error of a reply is raised."""
        try:
            return (yield from step(self._send, self._asend, commands))
        except (redis.RedisError, OSError) as error:
            # The text of a command error names the command, never its arguments.
            raise StoreError(f"Redis failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        if self._own:
            self._client.connection_pool.disconnect()

    async def aclose(self) -> None:
        with self._lock:
            here = self._async_clients.pop(asyncio.get_running_loop(), None)
            self._drop_ended()
        if here is not None:
            await here.connection_pool.disconnect()
        self.close()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            return [_raw(self._client).execute_command(*commands[0])]
        pipeline = _raw(self._client.pipeline(transaction=False))
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute())

    async def _asend(self, commands: Sequence[Command]) -> list[Any]:
        client = _raw(self._here())
        if len(commands) == 1:
            return [await client.execute_command(*commands[0])]
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute())

    def _here(self) -> AsyncClient:
        """The asynchronous client of the running loop; its connections cannot serve another loop."""
        if self._async_client is not None:
            return self._async_client
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop)
        if client is None:
            client = redis.asyncio.Redis(
                connection_pool=redis.asyncio.BlockingConnectionPool.from_url(self._url, **self._options(True))
                if self._url
                else _async_pool_like(self._client)
            )
            with self._lock:
                self._drop_ended()
                self._async_clients[loop] = client
        return client

    def _drop_ended(self) -> None:
        """Let go of the clients of loops that are closed: each holds its loop and its sockets. Needs the lock."""
        for loop in [loop for loop in self._async_clients if loop.is_closed()]:
            del self._async_clients[loop]

    def _sync_client(self, async_client: AsyncClient | None) -> Client:
        if self._url is None:
            given = "an asynchronous client alone" if async_client is not None else "nothing"
            raise ConfigError(f"a Redis store needs a URL or a synchronous client, got {given}")
        try:
            pool = redis.BlockingConnectionPool.from_url(self._url, **self._options(False))
        except ValueError as error:
            raise ConfigError(f"not a Redis URL: {error}") from error
        return redis.Redis(connection_pool=pool)

    def _options(self, asynchronous: bool) -> dict[str, Any]:
        retry = redis.asyncio.retry.Retry(NoBackoff(), 1) if asynchronous else Retry(NoBackoff(), 1)
        deadlines = dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), self._timeout)
        return {**deadlines, "retry": retry}


def _raw(client: Any) -> Any:
    """redis-py types neither ``execute_command`` nor replies; both are checked where they are decoded."""
    return client


def _pool_settings(client: Client | AsyncClient) -> dict[str, Any]:
    pool = getattr(client, "connection_pool", None)
    return dict(getattr(pool, "connection_kwargs", {}))


def _async_pool_like(client: Client) -> Any:
    """A pool with the settings of a synchronous client, for callers who gave only that one."""
    settings = _pool_settings(client)
    for name in ("retry", "maint_notifications_config", "maint_notifications_pool_handler", "event_dispatcher"):
        settings.pop(name, None)
    sync_class = getattr(client.connection_pool, "connection_class", redis.Connection)
    async_class = getattr(redis.asyncio, sync_class.__name__, redis.asyncio.Connection)
    return redis.asyncio.BlockingConnectionPool(connection_class=async_class, **settings)
