"""The shortest way of commands to Redis and back, for a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError, StoreError

_KEPT = 8
_SHARE = 0.1
"""Of the deadline, within which a call must have failed to be made again."""
_LEAST = 0.001


class Wire:
    """Sends packed commands over connections of its own.

    Two thirds of the time in which a client of redis-py answers a PING are its own. Here a connection is taken from
    those that lie idle, without a lock, and is nobody else's until it comes back. ``timeout`` is the deadline of a
    round trip in seconds; one that broke at once is tried once more. With ``bounded``, as many connections are open
    as the URL says, or 50; who comes beyond waits for one, as long. Replies are as the server wrote them. Raises
    `StoreError` if Redis fails.
    """

    def __init__(self, url: str, *, timeout: float, bounded: bool = False) -> None:
        self._timeout = timeout
        deadlines = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout)
        try:
            self._pool = redis.BlockingConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **deadlines)
        except ValueError as error:
            raise ConfigError(f"not a Redis URL: {error}") from error
        self._most = self._pool.max_connections if bounded else None
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """The connections of a parent process are its own."""
        self._idle: deque[Any] = deque(maxlen=_KEPT if self._most is None else None)
        self._returned = threading.Condition()
        self._waiting = self._made = 0

    def send(self, command: Sequence[Any]) -> Any:
        """The reply to a command; an error that Redis replied is raised."""
        return self.send_all([command])[0]

    def send_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to commands that travel together; the first error among them is raised."""
        try:
            replies = self.exchange(commands)
        except (redis.RedisError, OSError) as error:
            raise failed(error) from error
        for reply in replies:
            if isinstance(reply, redis.ResponseError):
                raise failed(reply) from reply
        return replies

    def exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Like `send_all`, with errors that Redis replied among the replies, and others as redis-py raises them."""
        packed = b"".join(map(_packed, commands))
        began = time.monotonic()
        try:
            return self._exchange(packed, len(commands), began)
        except (redis.ConnectionError, OSError) as error:
            if not broke_at_once(error, began, self._timeout):
                raise
            # Perhaps the server had closed it while it lay idle; then it has closed the others as well.
            self.close()
            return self._exchange(packed, len(commands), began)

    def close(self) -> None:
        """Whoever sends later connects anew."""
        for _ in range(len(self._idle)):
            try:
                connection = self._idle.pop()
            except IndexError:
                # Somebody else took it.
                return
            connection.disconnect()
            self._give_back(connection, first=False)

    def _exchange(self, packed: bytes, replies: int, began: float) -> list[Any]:
        connection = self._take()
        try:
            connection.send_packed_command([packed])
            return [self._reply(connection, began) for _ in range(replies)]
        except BaseException:
            # What is still to come over it is the answer to this command, not to the next one.
            connection.disconnect()
            raise
        finally:
            self._give_back(connection)

    def _reply(self, connection: Any, began: float) -> Any:
        spent = time.monotonic() - began
        # To change the socket's own deadline takes two calls of the system. What has come is read in any case.
        left = {} if spent < _SHARE * self._timeout else {"timeout": max(_LEAST, self._timeout - spent)}
        try:
            return connection.read_response(**left)
        except redis.ResponseError as error:
            return error

    def _take(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            if self._most is None:
                return self._new()
        with self._returned:
            self._waiting += 1
            try:
                found: list[Any] = []
                if not self._returned.wait_for(lambda: self._found(found), self._timeout):
                    raise redis.ConnectionError("all connections were in use until the deadline")
                return found[0]
            finally:
                self._waiting -= 1

    def _found(self, found: list[Any]) -> bool:
        """Whether there is an idle connection, or room for a new one. Needs the lock."""
        try:
            found.append(self._idle.pop())
        except IndexError:
            if self._most is None or self._made >= self._most:
                return False
            found.append(self._new())
            self._made += 1
        return True

    def _give_back(self, connection: Any, *, first: bool = True) -> None:
        (self._idle.append if first else self._idle.appendleft)(connection)
        # Who waits has said so before looking for an idle connection a last time.
        if self._waiting:
            with self._returned:
                self._returned.notify()

    def _new(self) -> Any:
        # Not by the pool, which counts connections it never sees again.
        return self._pool.connection_class(**self._pool.connection_kwargs)


class AsyncWire:
    """One connection of one event loop, for one round trip at a time; otherwise as `Wire`."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._timeout = timeout
        # One deadline for the round trip instead of one for every step of it.
        options: Any = {"socket_timeout": None, "retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
        pool = redis.asyncio.ConnectionPool.from_url(url, **options)
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)

    async def exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies, errors that Redis replied among them; other errors as redis-py raises them."""
        packed = b"".join(map(_packed, commands))
        began = time.monotonic()
        try:
            # One deadline, also if it takes two attempts.
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._exchange(packed, len(commands))
                except (redis.ConnectionError, OSError) as error:
                    if not broke_at_once(error, began, self._timeout):
                        raise
                    # Perhaps the server had closed it while it lay idle.
                    return await self._exchange(packed, len(commands))
        except TimeoutError:
            raise redis.TimeoutError("no answer until the deadline") from None

    async def close(self) -> None:
        await self._connection.disconnect()

    async def _exchange(self, packed: bytes, replies: int) -> list[Any]:
        connection = self._connection
        try:
            await connection.send_packed_command([packed], check_health=False)
            return [await _areply(connection) for _ in range(replies)]
        except BaseException:
            # What is still to come over it is the answer to this command, not to the next one.
            await connection.disconnect(nowait=True)
            raise


def broke_at_once(error: BaseException, began: float, timeout: float) -> bool:
    """Whether a call may be made once more: it ``began`` a moment ago, and its connection broke.

    A connection that the server closed while it lay idle breaks at once. What took longer was perhaps under way, and
    what found no answer until the deadline has no time left.
    """
    broke = isinstance(error, redis.ConnectionError | OSError) and not isinstance(error, TimeoutError)
    return broke and time.monotonic() - began < _SHARE * timeout


def failed(error: BaseException) -> StoreError:
    """The text of a command error names the command, never its arguments."""
    return StoreError(f"Redis failed: {type(error).__name__}: {error}")


async def _areply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except redis.ResponseError as error:
        return error


def _packed(command: Sequence[Any]) -> bytes:
    raw: bytes = pack_command(tuple(command))
    return raw
