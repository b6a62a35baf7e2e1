"""Entries in any Redis or Valkey, exact search in each process over a mirror of the vectors."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from dispatch_core._flow import Flow, arun, pause, run
from dispatch_core.stores._index import VectorIndex
from dispatch_core.types import Entry, Match, Usage, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_CHANGE = files("dispatch_core.stores").joinpath("change.lua").read_text()
_JOURNAL_LENGTH = 10_000
_PAGE = 1_000
_POLL, _POLLS = 0.005, 200
_Position = tuple[bytes | None, int]
"""Where in the journal: its epoch and the last number seen."""


class RedisNearStore:
    """Needs Redis ≥ 6 or Valkey, no module.

    Entries live in Redis as hashes, with the server's own expiry. Every process mirrors the vectors in memory and,
    before a search, follows a journal (a stream) of changes in one round trip: what another process has written is
    found, and one's own writes at once. After a gap in the journal, or on a server that came back empty, the mirror
    is loaded anew. All keys share one hash tag.

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
        self._entry_prefix = f"{tag}:e:"
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
        run(self._delete([id]))

    async def adelete(self, id: str) -> None:
        await arun(self._delete([id]))

    def clear(self, namespace: str | None = None) -> None:
        run(self._clear(namespace))

    async def aclear(self, namespace: str | None = None) -> None:
        await arun(self._clear(namespace))

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
        found = self._index.search(vector, scope=scope, limit=limit, now=now)
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
        expires_ms = 0 if entry.expires is None else max(1, math.ceil(entry.expires * 1000))
        change = self._change("put", entry.id, expires_ms, *_fields(entry, vector))
        [number] = yield from self._redis.send(change)
        with self._lock:
            if number == self._seen + 1:
                _mirror(self._index, entry.id, entry.scope, vector, entry.expires)
                self._seen = number

    def _delete(self, ids: Sequence[str]) -> Flow[None]:
        for start in range(0, len(ids), _PAGE):
            yield from self._redis.send(*(self._change("del", id, 0) for id in ids[start : start + _PAGE]))

    def _clear(self, namespace: str | None) -> Flow[None]:
        ids: list[str] = []
        cursor: Any = 0
        while True:
            cursor, page = yield from self._scan(cursor)
            owners = yield from self._each(page, "HGET", "namespace")
            ids += [id for id, owner in zip(page, owners, strict=True) if _is_of(owner, namespace)]
            if not int(cursor):
                break
        yield from self._delete(ids)

    def _follow(self) -> Flow[None]:
        """Bring the mirror up to the journal."""
        while True:
            with self._lock:
                known, seen = self._epoch, self._seen
            (epoch, last), news = yield from self._redis.send(
                ("MGET", self._epoch_key, self._sequence),
                ("XRANGE", self._journal, f"{max(seen, 0)}-1", "+", "COUNT", _PAGE),
            )
            first = _number(news[0]) if news else None
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
        changed = {_as_map(line[1])[b"id"].decode(): _number(line) for line in news if _number(line) > self._seen}
        rows = yield from self._rows(list(changed))
        with self._lock:
            if epoch != self._epoch:
                return
            for id, row in rows:
                # Others may have read on meanwhile: what they know is newer than this row.
                if changed[id] > self._seen:
                    _mirror(self._index, id, *row)
            self._seen = max(self._seen, _number(news[-1]))

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
        rows = yield from self._each(ids, "HMGET", "scope", "vector", "expires")
        return [
            (
                id,
                (
                    (scope or b"").decode(),
                    np.frombuffer(vector, dtype="<f4") if vector else None,
                    float(expires) if expires else None,
                ),
            )
            for id, (scope, vector, expires) in zip(ids, rows, strict=True)
        ]

    def _scan(self, cursor: Any) -> Flow[tuple[Any, list[str]]]:
        [(cursor, keys)] = yield from self._redis.send(
            ("SCAN", cursor, "MATCH", _literal(self._entry_prefix) + "*", "COUNT", _PAGE)
        )
        return cursor, [key.decode().removeprefix(self._entry_prefix) for key in keys]

    def _each(self, ids: Sequence[str], command: str, *fields: str) -> Flow[list[Any]]:
        if not ids:
            return []
        return (yield from self._redis.send(*((command, self._entry_prefix + id, *fields) for id in ids)))

    def _fetch(self, ids: Sequence[str]) -> Flow[dict[str, Entry]]:
        rows = yield from self._each(ids, "HGETALL")
        return {id: _entry(id, _as_map(row)) for id, row in zip(ids, rows, strict=True) if row}

    def _change(self, op: str, id: str, expires_ms: int, *fields: Any) -> tuple[Any, ...]:
        keys = (self._entry_prefix + id, self._sequence, self._journal, self._epoch_key)
        fresh_epoch = uuid.uuid4().hex
        return ("EVAL", _CHANGE, len(keys), *keys, op, id, _JOURNAL_LENGTH, fresh_epoch, expires_ms, *fields)


def _mirror(index: VectorIndex, id: str, scope: str, vector: Vector | None, expires: float | None) -> None:
    if vector is None:
        index.remove(id)
    else:
        index.put(id, scope, vector, expires)


def _number(line: tuple[bytes, Any]) -> int:
    """The sequence number of a line of the journal."""
    return int(line[0].split(b"-")[0])


def _literal(text: str) -> str:
    """Escape what a MATCH pattern would read as a wildcard."""
    return "".join("\\" + char if char in "*?[]\\^-" else char for char in text)


def _is_of(owner: bytes | None, namespace: str | None) -> bool:
    return owner is not None and (namespace is None or owner.decode() == namespace)


def _as_map(row: Any) -> dict[bytes, bytes]:
    """A hash reply: a dict from most clients, a flat list from a raw one."""
    return row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))


def _fields(entry: Entry, vector: Vector | None) -> list[Any]:
    return [
        *("namespace", entry.namespace),
        *("scope", entry.scope),
        *("text", entry.text.encode("utf-8", "surrogatepass")),
        *("payload", entry.payload),
        *("input_tokens", entry.usage.input_tokens),
        *("output_tokens", entry.usage.output_tokens),
        *("created", repr(entry.created)),
        *("expires", "" if entry.expires is None else repr(entry.expires)),
        *("vector", b"" if vector is None else np.asarray(vector, dtype="<f4").tobytes()),
    ]


def _entry(id: str, row: dict[bytes, bytes]) -> Entry:
    return Entry(
        id=id,
        namespace=row[b"namespace"].decode(),
        scope=row[b"scope"].decode(),
        text=row[b"text"].decode("utf-8", "surrogatepass"),
        payload=row[b"payload"],
        usage=Usage(int(row[b"input_tokens"]), int(row[b"output_tokens"])),
        created=float(row[b"created"]),
        expires=float(row[b"expires"]) if row[b"expires"] else None,
    )
