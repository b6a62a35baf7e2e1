"""Whichever store the server can serve best, found out at the first use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, step
from dispatch_core.errors import StoreError
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores import _redisearch_wire as wire
from dispatch_core.stores._redis_store import AllFlowStore, RedisStore
from dispatch_core.stores.redisearch import RediSearchStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.vectorset import VectorSetStore
from dispatch_core.types import Entry, Match, Memory, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_Store = RediSearchStore | VectorSetStore | RedisNearStore
_KINDS: dict[bytes, type[_Store]] = {
    b"redisearch": RediSearchStore,
    b"vectorset": VectorSetStore,
    b"near": RedisNearStore,
}
_PAGE = 1_000


class RedisAutoStore(AllFlowStore):
    """`RediSearchStore` if the server has `FT.SEARCH`, else `RedisNearStore`; what has entries already stays.

    The server is asked at the first use, and not before; commands that it denies to this user it does not have. As
    long as it cannot be asked, calls raise `StoreError` and the next one asks again. Where there is a choice, it
    falls on the store whose entries lie under the prefix: a server that learned something new loses nothing. It is
    written down there, so that all processes agree. To find out, the first use of a prefix looks through the names of
    all keys of the server, once. The arguments are those of the stores.

    Vector sets (`VectorSetStore`, Redis ≥ 8) are taken where they are in use. On Redis 8 with 10,000 entries of 384
    dimensions and 1 kB, a search in them takes three to four times the processor time of one by `RedisNearStore`,
    client and server together, a put seven times, an exact hit 1.8 times, and an entry 1.3 times the memory of the
    server; and their work is the server's, which is one for all. What speaks for them is that they leave nothing in
    the processes: a mirror takes 2 kB an entry in each, and is loaded when a process begins. Who expects millions of
    entries, or starts processes for a few questions each, says ``index="vectorset"``.
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
        self._names, self._nothing, self._choice = f"{tag}:", f"{tag}:nothing", f"{tag}:index"
        self._entries: dict[str, type[_Store]] = {
            f"{tag}:ft:e:": RediSearchStore,
            f"{tag}:vs:e:": VectorSetStore,
            f"{tag}:n:": RedisNearStore,
        }
        self._lock = threading.Lock()
        self._chosen: _Store | None = None

        def made(kind: type[_Store]) -> _Store:
            store = kind(url, client=client, async_client=async_client, prefix=prefix, timeout=timeout)
            if isinstance(store, RedisStore):
                # What asked is used on: no connection of the store's own was opened yet, and none will be.
                store._redis = self._redis
            return store

        self._made = made

    @property
    def chosen(self) -> RediSearchStore | VectorSetStore | RedisNearStore | None:
        """The store that is used; None as long as nothing was asked of it."""
        return self._chosen

    def memory(self, *, samples: int = 0) -> Memory | None:
        """What the chosen store says; None before there is one, and where the server keeps the vectors."""
        return self._chosen.memory(samples=samples) if isinstance(self._chosen, RedisNearStore) else None

    async def amemory(self, *, samples: int = 0) -> Memory | None:
        return (await self._chosen.amemory(samples=samples)) if isinstance(self._chosen, RedisNearStore) else None

    def close(self) -> None:
        self._redis.close()
        if self._chosen is not None:
            self._chosen.close()

    async def aclose(self) -> None:
        await self._redis.aclose()
        if self._chosen is not None:
            await self._chosen.aclose()

    def _get(self, id: str, now: float) -> Flow[Entry | None]:
        store = yield from self._store()
        return (yield from step(store.get, store.aget, id, now=now))

    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]:
        store = yield from self._store()
        return (yield from step(store.search, store.asearch, vector, scope=scope, limit=limit, now=now))

    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]:
        store = yield from self._store()
        yield from step(store.put, store.aput, entry, vector)

    def _delete(self, id: str) -> Flow[None]:
        store = yield from self._store()
        yield from step(store.delete, store.adelete, id)

    def _touch(self, id: str, expires: float | None, now: float) -> Flow[None]:
        store = yield from self._store()
        yield from step(store.touch, store.atouch, id, expires=expires, now=now)

    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        store = yield from self._store()
        return (yield from step(store.clear, store.aclear, namespace, tags=tags))

    def _lease(self, id: str, owner: str, seconds: float) -> Flow[bool]:
        store = yield from self._store()
        return (yield from step(store.lease, store.alease, id, owner=owner, seconds=seconds))

    def _release(self, id: str, owner: str) -> Flow[None]:
        store = yield from self._store()
        yield from step(store.release, store.arelease, id, owner=owner)

    def _store(self) -> Flow[_Store]:
        if self._chosen is None:
            kind = yield from self._ask()
            with self._lock:
                if self._chosen is None:
                    self._chosen = self._made(kind)
        return self._chosen

    def _ask(self) -> Flow[type[_Store]]:
        """Ask with the commands themselves: this user may be denied them, or `COMMAND`, which would tell."""
        able: list[type[_Store]] = [RedisNearStore]
        if (yield from self._takes("FT.SEARCH", self._nothing, "*")):
            able.insert(0, RediSearchStore)
        if (yield from self._takes("VSIM", self._nothing, "VALUES", 1, "1")):
            able.append(VectorSetStore)
        return able[0] if len(able) == 1 else (yield from self._choose(able))

    def _choose(self, able: Sequence[type[_Store]]) -> Flow[type[_Store]]:
        """What others chose, else what is in use, else the first of those."""
        told = yield from self._permitted("GET", self._choice)
        if _KINDS.get(told) in able:
            return _KINDS[told]
        kind = (yield from self._in_use(able)) or able[0]
        name = next(name for name, known in _KINDS.items() if known is kind)
        yield from self._permitted("SET", self._choice, name, "NX")
        # Perhaps somebody else was faster.
        told = yield from self._permitted("GET", self._choice)
        return _KINDS[told] if _KINDS.get(told) in able else kind

    def _in_use(self, able: Sequence[type[_Store]]) -> Flow[type[_Store] | None]:
        """Of several stores with entries the one that the server had to learn."""
        found: set[type[_Store]] = set()
        cursor: Any = 0
        while True:
            scan = ("SCAN", cursor, "MATCH", rows.literal(self._names) + "*", "COUNT", _PAGE)
            page = yield from self._permitted(*scan)
            cursor, keys = page if page is not None else (0, [])
            for start, kind in self._entries.items():
                if kind not in found and any(key.startswith(start.encode()) for key in keys):
                    found.add(kind)
            if not int(cursor):
                return next((kind for kind in _KINDS.values() if kind in found and kind in able), None)

    def _permitted(self, *command: Any) -> Flow[Any]:
        """The reply; None if this user may not ask that."""
        from redis.exceptions import NoPermissionError

        try:
            [reply] = yield from self._redis.send(command)
        except StoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        return reply

    def _takes(self, *command: Any) -> Flow[bool]:
        from redis.exceptions import NoPermissionError

        try:
            yield from self._redis.send(command)
        except StoreError as error:
            if wire.is_absent(str(error)) or isinstance(error.__cause__, NoPermissionError):
                return False
            if not wire.is_missing(str(error)):
                raise
        return True
