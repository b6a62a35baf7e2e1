"""Entries in a Redis with RediSearch, searched by the server in one index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dispatch_core._flow import Flow, pause
from dispatch_core.errors import ConfigError, DimensionMismatch, StoreError
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores import _redisearch_wire as wire
from dispatch_core.stores._redis_store import RedisStore, Script
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_CHANGE = Script.named("redisearch")
_PAGE, _TAGS_AT_ONCE = 1_000, 200
_POLL = 0.01
_ATTEMPTS = 3


class RediSearchStore(RedisStore):
    """Needs RediSearch ≥ 2.6: Redis Stack, or Redis ≥ 8 as its makers build it.

    Entries live in Redis as hashes, with the server's own expiry, and one index (HNSW, cosine, float32) finds them
    by the meaning of their text: scope and expiry are filters inside the search, and the answers come with its reply,
    in one round trip. Where a scope is small the server compares exactly; beyond, it walks a graph, and a larger
    ``ef`` (candidates kept on the walk) makes it look at more of them. Nothing is kept in the process.

    The index is made at the first use and named after the length of its vectors, ``{prefix}:ft:i<layout>:<dims>``:
    an embedder of another length gets one of its own. Where entries were there before, the first call waits until
    they are indexed, for at most ``timeout``; what is not indexed yet is not found.

    Give ``url`` or a ``client`` (and an ``async_client`` if it must be a certain one); clients with
    ``decode_responses`` are refused. ``timeout`` is the deadline of a call in seconds, for clients made from a URL,
    and of a search in the server. Raises `ConfigError` at the first use if the server has no RediSearch.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | None = None,
        async_client: redis.asyncio.Redis | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
        ef: int = 64,
    ) -> None:
        if ef < 1:
            raise ConfigError(f"ef is a positive number of candidates, got {ef}")
        super().__init__(url, "ft", client=client, async_client=async_client, prefix=prefix, timeout=timeout)
        self._lengths = f"{self._own}dims"
        self._timeout = timeout
        self._ef = ef
        self._made: set[int] = set()

    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]:
        want = limit
        while True:
            reply = yield from self._ask(vector, scope, want, now)
            found = wire.hits(reply)
            if not found:
                yield from self._refuse_other_lengths((yield from self._known()), scope, len(vector))
            if len(found) >= limit or wire.size(reply) < want:
                break
            # Some of the nearest expired by the server's clock while it searched: the next ones take their place.
            want *= 2
        matches = [Match(wire.entry(key, self._entry_prefix, row), wire.cosine(row)) for key, row in found]
        return sorted(matches, key=lambda match: -match.score)[:limit]

    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]:
        if vector is not None and len(vector) not in self._made:
            yield from self._refuse_other_lengths((yield from self._known()), entry.scope, len(vector))
            yield from self._make(len(vector))
        ends, fields = rows.milliseconds(entry.expires), wire.fields(entry, vector)
        length = "" if vector is None else len(vector)
        others = yield from self._run(*self._change("put", entry.id, ends, length, "", *fields))
        if others and vector is not None:
            yield from self._refuse_other_lengths([int(other) for other in others], entry.scope, len(vector))
            yield from self._run(*self._change("put", entry.id, ends, length, 1, *fields))

    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        """By the index if it knows every entry; otherwise, and to forget all, by looking at every key."""
        lengths: Sequence[int] = ()
        if namespace is not None or tags:
            lengths = yield from self._known()
        for dims in lengths:
            if (yield from self._complete(dims)):
                removed, chunks = 0, _chunks(sorted(tags)) or [[]]
                for chunk in chunks:
                    removed += yield from self._clear_by_index(self._index(dims), namespace, frozenset(chunk))
                return removed
        return (yield from super()._clear(namespace, tags))

    def _clear_by_index(self, index: str, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        removed = start = 0
        while True:
            command = wire.marked(index, namespace=namespace, tags=tags, start=start, count=_PAGE)
            [reply] = yield from self._send(command)
            marks = [
                (key.decode().removeprefix(self._entry_prefix), (row.get(b"namespace"), row.get(b"tags", b"")))
                for key, row in wire.hits(reply)
            ]
            gone = yield from self._forget(marks, namespace, tags)
            removed += gone
            if gone:
                # The others have moved up, and what expired meanwhile is not counted any more.
                start = 0
            elif wire.size(reply) < _PAGE:
                return removed
            else:
                start += _PAGE

    def _ask(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Any]:
        """Search the index; make it if it is not there."""
        dims, command = len(vector), self._nearest(vector, scope, limit, now)
        for attempt in range(_ATTEMPTS):
            try:
                [reply] = yield from self._send(command)
            except StoreError as error:
                if not wire.is_missing(str(error)) or attempt == _ATTEMPTS - 1:
                    raise
                yield from self._refuse_other_lengths((yield from self._known()), scope, dims)
                yield from self._make(dims)
            else:
                return reply
        raise AssertionError("unreachable")

    def _make(self, dims: int) -> Flow[None]:
        """Make the index, or find it made, and wait for what was there before."""
        try:
            yield from self._send(wire.create(self._index(dims), self._entry_prefix, dims))
        except StoreError as error:
            # Another process was faster.
            if "already exists" not in str(error):
                raise
        for _ in range(max(1, int(self._timeout / _POLL))):
            [told] = yield from self._send(("FT.INFO", self._index(dims)))
            if wire.indexed(told)[0]:
                break
            yield from pause(_POLL)
        self._made.add(dims)

    def _complete(self, dims: int) -> Flow[bool]:
        """Whether the index for vectors of this length knows every entry, also those without a vector."""
        try:
            [told] = yield from self._send(("FT.INFO", self._index(dims)))
        except StoreError as error:
            if wire.is_missing(str(error)):
                return False
            raise
        return all(wire.indexed(told))

    def _known(self) -> Flow[list[int]]:
        """The lengths that vectors were put with, here or elsewhere."""
        [lengths] = yield from self._send(("SMEMBERS", self._lengths))
        return sorted(int(length) for length in lengths)

    def _refuse_other_lengths(self, lengths: Sequence[int], scope: str, dims: int) -> Flow[None]:
        """Raise `DimensionMismatch` if the scope has an entry with a vector of another one of these lengths."""
        for other in lengths:
            if other != dims:
                command = self._nearest(np.ones(other, np.float32), scope, 1, None)
                try:
                    [reply] = yield from self._send(command)
                except StoreError as error:
                    if not wire.is_missing(str(error)):
                        raise
                else:
                    if wire.hits(reply):
                        raise DimensionMismatch(other, dims)

    def _send(self, *commands: tuple[Any, ...]) -> Flow[list[Any]]:
        try:
            return (yield from self._redis.send(*commands))
        except StoreError as error:
            if not wire.is_absent(str(error)):
                raise
            raise ConfigError(
                "this server has no RediSearch (FT.SEARCH): RediSearchStore needs Redis Stack or a Redis >= 8 with "
                "the query engine; VectorSetStore takes any Redis >= 8.0, RedisNearStore any Redis >= 6 or Valkey"
            ) from error.__cause__

    def _change(self, op: str, id: str, *rest: Any) -> tuple[Script, tuple[str, ...], tuple[Any, ...]]:
        return _CHANGE, (self._entry_prefix + id, self._lengths), (op, id, *rest)

    def _index(self, dims: int) -> str:
        return f"{self._own}i{wire.LAYOUT}:{dims}"

    def _nearest(self, vector: Vector, scope: str, limit: int, now: float | None) -> tuple[Any, ...]:
        index, timeout = self._index(len(vector)), max(1, int(self._timeout * 1000))
        return wire.nearest(index, vector, scope=scope, limit=limit, now=now, ef=self._ef, timeout=timeout)


def _chunks(tags: Sequence[str]) -> list[Sequence[str]]:
    return [tags[start : start + _TAGS_AT_ONCE] for start in range(0, len(tags), _TAGS_AT_ONCE)]
