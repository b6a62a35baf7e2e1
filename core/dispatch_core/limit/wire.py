"""The shortest way of one command to Redis and back, for a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dispatch_core.errors import ConfigError, StoreError

_KEPT = 8


class Wire:
    """Sends packed commands over connections of its own.

    Two thirds of the time in which a client of redis-py answers a PING are its own. Here a connection is taken from
    those that lie idle, without a lock, and is nobody else's until it comes back. ``timeout`` is the deadline of a
    round trip in seconds; one that broke is tried once more. Raises `StoreError` if Redis fails.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        deadlines = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), timeout)
        try:
            self._pool = redis.ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), **deadlines)
        except ValueError as error:
            raise ConfigError(f"not a Redis URL: {error}") from error
        self.start_anew()

    def start_anew(self) -> None:
        """The connections of a parent process are its own."""
        self._idle: deque[Any] = deque(maxlen=_KEPT)

    def send(self, command: Sequence[bytes | str | int]) -> Any:
        """The reply to a command; an error that Redis replied is raised."""
        packed = _packed(command)
        try:
            try:
                return self._exchange(packed)
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                # Perhaps the server had closed it while it lay idle; then it has closed the others as well.
                self.close()
                return self._exchange(packed)
        except (redis.RedisError, OSError) as error:
            # The text of a command error names the command, never its arguments.
            raise StoreError(f"Redis failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Whoever sends later connects anew."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:
                """Somebody else took it."""

    def _exchange(self, packed: bytes) -> Any:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.make_connection()
        try:
            connection.send_packed_command([packed])
            reply = connection.read_response()
        except redis.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            # What is still to come over it is the answer to this command, not to the next one.
            connection.disconnect()
            raise
        self._idle.append(connection)
        return reply


def _packed(command: Sequence[bytes | str | int]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)
