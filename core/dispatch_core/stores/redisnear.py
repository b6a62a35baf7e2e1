"""Entries in any Redis or Valkey, searched in each process over a mirror of the vectors."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, arun, pause, run, step
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._codec import decoded_tags
from dispatch_core.stores._index import VectorIndex
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_CHANGE, _LEASE = (files("dispatch_core.stores").joinpath(f"{name}.lua").read_text() for name in ("change", "lease"))
_JOURNAL_LENGTH = 10_000
_PAGE, _DELETIONS = 1_000, 100
_POLL, _POLLS = 0.005, 200
_Position = tuple[bytes | None, int]
"""Where in the journal: its epoch and the last number seen."""


class RedisNearStore:
    """Needs Redis ≥ 6 or Valkey, no module.

    Entries live in Redis as hashes, with the server's own expiry. Every process mirrors the vectors in memory and,
    before a search, follows a journal (a stream) of changes in one round trip: what another process has written is
    found, and one's own writes at once. After a gap in the journal, or on a server that came back empty, the mirror
    is loaded anew. All keys share one hash tag.

    How much is kept is the server's to decide: set its ``maxmemory`` and ``maxmemory-policy`` (``allkeys-lfu`` keeps
    what is asked for). What it evicted is not found, and leaves the mirrors when they come upon it; a full server
    that may not evict refuses to store more, with `StoreError`, and still lets entries be deleted.

    Give ``url`` or a ``client`` (and an ``async_client`` if it must be a certain one); clients with
    ``decode_responses`` are refused. ``timeout`` is the deadline of a call in seconds, for clients made from a URL.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | None = None,
        async_client: redis.asyncio.Redis | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
    ) -> None:
        # Importing redis costs 0.1 s: only who uses this store pays it.
        from dispatch_core.stores._redis import Connections

        self._redis = Connections(url, client, async_client, timeout=timeout)
        tag = "{" + prefix + "}"
        self._entry_prefix, self._lease_prefix = f"{tag}:e:", f"{tag}:l:"
        self._sequence, self._journal, self._epoch_key = f"{tag}:seq", f"{tag}:log", f"{tag}:epoch"
        # Callers in many threads and tasks move the mirror forward together: what one has read of the journal is
        # applied under the lock, and only if nobody else was there before.
        self._lock = threading.Lock()
        self._loading = False
        self._index = VectorIndex()
        self._epoch: bytes | None = None
        self._seen = -1

    def get(self, id: str, *, now: float) -> Entry | None:
        return run(self._get(id, now))

    async def aget(self, id: str, *, now: float) -> Entry | None:
        return await arun(self._get(id, now))

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return run(self._search(vector, scope, limit, now))

    async def asearch(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return await arun(self._search(vector, scope, limit, now))

    def put(self, entry: Entry, vector: Vector | None) -> None:
        run(self._put(entry, vector))

    async def aput(self, entry: Entry, vector: Vector | None) -> None:
        await arun(self._put(entry, vector))

    def delete(self, id: str) -> None:
        run(self._delete(id))

    async def adelete(self, id: str) -> None:
        await arun(self._delete(id))

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        run(self._touch(id, expires, now))

    async def atouch(self, id: str, *, expires: float | None, now: float) -> None:
        await arun(self._touch(id, expires, now))

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        return run(self._clear(namespace, frozenset(tags)))

    async def aclear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        return await arun(self._clear(namespace, frozenset(tags)))

    def lease(self, id: str, *, owner: str, seconds: float) -> bool:
        return run(self._lease(id, owner, max(1, math.ceil(seconds * 1000))))

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool:
        return await arun(self._lease(id, owner, max(1, math.ceil(seconds * 1000))))

    def release(self, id: str, *, owner: str) -> None:
        run(self._lease(id, owner, 0))

    async def arelease(self, id: str, *, owner: str) -> None:
        await arun(self._lease(id, owner, 0))

    def close(self) -> None:
        self._redis.close()

    async def aclose(self) -> None:
        await self._redis.aclose()

    def _get(self, id: str, now: float) -> Flow[Entry | None]:
        entries = yield from self._fetch([id])
        entry = entries.get(id)
        return entry if entry is not None and entry.fresh(now) else None

    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]:
        yield from self._follow()
        seen = self._seen
        index = self._index
        found = yield from step(index.search, index.asearch, vector, scope=scope, limit=limit, now=now)
        if not found:
            return []
        entries = yield from self._fetch([id for id, _ in found])
        with self._lock:
            for id, _ in found:
                if id not in entries and self._seen == seen:
                    # The server expired or evicted it without a word in the journal.
                    self._index.remove(id)
        return [Match(entries[id], score) for id, score in found if id in entries]

    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]:
        if vector is not None:
            # Loaded before the first write, so that a vector of a wrong length is refused, not stored.
            yield from self._follow()
            self._index.check(entry.scope, vector)
        expires_ms = rows.milliseconds(entry.expires)
        change = self._change("put", entry.id, expires_ms, *rows.fields(entry, vector))
        [number] = yield from self._redis.send(change)
        with self._lock:
            if number == self._seen + 1:
                _mirror(self._index, entry.id, entry.scope, vector, entry.expires)
                self._seen = number

    def _touch(self, id: str, expires: float | None, now: float) -> Flow[None]:
        ends = rows.milliseconds(expires), rows.instant(expires)
        [number] = yield from self._redis.send(self._change("touch", id, *ends, rows.instant(now)))
        with self._lock:
            if number > 0 and number == self._seen + 1:
                self._index.touch(id, expires)
                self._seen = number

    def _delete(self, id: str) -> Flow[None]:
        yield from self._redis.send(self._change("del", id))

    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        removed = 0
        cursor: Any = 0
        while True:
            cursor, page = yield from self._scan(cursor)
            marks = yield from self._each(page, "HMGET", "namespace", "tags")
            doomed = [
                # On condition that it is still what it was: another process may have rewritten it meanwhile.
                self._change("del", id, *(() if namespace is None and not tags else (owner, carried or b"")))
                for id, (owner, carried) in zip(page, marks, strict=True)
                if owner is not None
                and (namespace is None or owner.decode() == namespace)
                and (not tags or not tags.isdisjoint(decoded_tags(carried)))
            ]
            for start in range(0, len(doomed), _DELETIONS):
                removed += sum((yield from self._redis.send(*doomed[start : start + _DELETIONS])))
            if not int(cursor):
                return removed

    def _lease(self, id: str, owner: str, milliseconds: int) -> Flow[bool]:
        key = self._lease_prefix + id
        [held] = yield from self._redis.send(("EVAL", _LEASE, 1, key, owner, milliseconds))
        return bool(held)

    def _follow(self) -> Flow[None]:
        """Bring the mirror up to the journal."""
        while True:
            with self._lock:
                known, seen = self._epoch, self._seen
            (epoch, last), news = yield from self._redis.send(
                ("MGET", self._epoch_key, self._sequence),
                ("XRANGE", self._journal, f"{max(seen, 0)}-1", "+", "COUNT", _PAGE),
            )
            first = rows.number(news[0]) if news else None
            gap = first is not None and first != seen + 1
            lost = first is None and int(last or 0) != seen
            if seen < 0 or epoch != known or gap or lost:
                if (yield from self._load((known, seen), (epoch, int(last or 0)))):
                    return
                continue
            if not news:
                return
            yield from self._apply(news, epoch)
            if len(news) < _PAGE:
                return

    def _apply(self, news: Sequence[tuple[bytes, Any]], epoch: bytes | None) -> Flow[None]:
        changed: dict[str, int] = {}
        touched: dict[str, float | None] = {}
        written: set[str] = set()
        for line in news:
            if rows.number(line) > self._seen:
                change = rows.as_map(line[1])
                id = change[b"id"].decode()
                changed[id] = rows.number(line)
                if change[b"op"] == b"touch":
                    touched[id] = rows.instant_of(change[b"expires"])
                else:
                    written.add(id)
        mirrored = yield from self._rows(list(written))
        with self._lock:
            if epoch != self._epoch:
                return
            # Others may have read on meanwhile: what they know is newer than these lines.
            for id, row in mirrored:
                if changed[id] > self._seen:
                    _mirror(self._index, id, *row)
            for id, expires in touched.items():
                if changed[id] > self._seen and id not in written:
                    self._index.touch(id, expires)
            self._seen = max(self._seen, rows.number(news[-1]))

    def _load(self, before: _Position, after: _Position) -> Flow[bool]:
        """Read all anew; False if somebody else moved the mirror meanwhile, perhaps further."""
        polls = 0
        # A hundred askers after a restart are one load. Who loads may never come back: then, after a second, another.
        while self._loading and polls < _POLLS:
            polls += 1
            yield from pause(_POLL)
        if (self._epoch, self._seen) != before:
            return False
        self._loading = True
        try:
            index = VectorIndex()
            cursor: Any = 0
            while True:
                cursor, ids = yield from self._scan(cursor)
                for id, row in (yield from self._rows(ids)):
                    _mirror(index, id, *row)
                if not int(cursor):
                    break
            with self._lock:
                if (self._epoch, self._seen) != before:
                    return False
                self._index, (self._epoch, self._seen) = index, after
                return True
        finally:
            self._loading = False

    def _rows(self, ids: Sequence[str]) -> Flow[list[tuple[str, tuple[str, Vector | None, float | None]]]]:
        """What the mirror needs to know of these entries; one that is gone has no vector."""
        found = yield from self._each(ids, "HMGET", "scope", "vector", "expires")
        return [
            (id, ((scope or b"").decode(), rows.vector_of(vector), rows.instant_of(expires)))
            for id, (scope, vector, expires) in zip(ids, found, strict=True)
        ]

    def _scan(self, cursor: Any) -> Flow[tuple[Any, list[str]]]:
        [(cursor, keys)] = yield from self._redis.send(
            ("SCAN", cursor, "MATCH", rows.literal(self._entry_prefix) + "*", "COUNT", _PAGE)
        )
        return cursor, [key.decode().removeprefix(self._entry_prefix) for key in keys]

    def _each(self, ids: Sequence[str], command: str, *fields: str) -> Flow[list[Any]]:
        if not ids:
            return []
        return (yield from self._redis.send(*((command, self._entry_prefix + id, *fields) for id in ids)))

    def _fetch(self, ids: Sequence[str]) -> Flow[dict[str, Entry]]:
        found = yield from self._each(ids, "HGETALL")
        return {id: rows.entry(id, rows.as_map(row)) for id, row in zip(ids, found, strict=True) if row}

    def _change(self, op: str, id: str, *rest: Any) -> tuple[Any, ...]:
        keys = (self._entry_prefix + id, self._sequence, self._journal, self._epoch_key)
        return ("EVAL", _CHANGE, len(keys), *keys, op, id, _JOURNAL_LENGTH, uuid.uuid4().hex, *rest)


def _mirror(index: VectorIndex, id: str, scope: str, vector: Vector | None, expires: float | None) -> None:
    if vector is None:
        index.remove(id)
    else:
        index.put(id, scope, vector, expires)
