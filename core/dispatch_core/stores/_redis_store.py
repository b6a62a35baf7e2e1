"""What the server-side stores of Redis share: both forms of every call, rows as hashes, leases, forgetting."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, arun, run
from dispatch_core.errors import StoreError
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._codec import decoded_tags
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_PAGE, _DELETIONS = 1_000, 100


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name by which a server that has seen it knows it."""

    text: str
    sha: str

    @classmethod
    def named(cls, name: str) -> Script:
        text = files("dispatch_core.stores").joinpath(f"{name}.lua").read_text()
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_LEASE = Script.named("lease")


class FlowStore(ABC):
    """Gives a store both forms of its calls, from one flow each, but for `get`, which may have a shorter way."""

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
        return run(self._lease(id, owner, seconds))

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool:
        return await arun(self._lease(id, owner, seconds))

    def release(self, id: str, *, owner: str) -> None:
        run(self._release(id, owner))

    async def arelease(self, id: str, *, owner: str) -> None:
        await arun(self._release(id, owner))

    @abstractmethod
    def get(self, id: str, *, now: float) -> Entry | None: ...
    @abstractmethod
    async def aget(self, id: str, *, now: float) -> Entry | None: ...
    @abstractmethod
    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]: ...
    @abstractmethod
    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]: ...
    @abstractmethod
    def _delete(self, id: str) -> Flow[None]: ...
    @abstractmethod
    def _touch(self, id: str, expires: float | None, now: float) -> Flow[None]: ...
    @abstractmethod
    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]: ...
    @abstractmethod
    def _lease(self, id: str, owner: str, seconds: float) -> Flow[bool]: ...
    @abstractmethod
    def _release(self, id: str, owner: str) -> Flow[None]: ...


class AllFlowStore(FlowStore):
    """All calls from flows."""

    def get(self, id: str, *, now: float) -> Entry | None:
        return run(self._get(id, now))

    async def aget(self, id: str, *, now: float) -> Entry | None:
        return await arun(self._get(id, now))

    @abstractmethod
    def _get(self, id: str, now: float) -> Flow[Entry | None]: ...


class RedisStore(AllFlowStore):
    """Entries as hashes at ``{prefix}:kind:e:<id>``; how they are searched is the subclass's.

    Its ``_change`` is a script with the operations ``touch`` (expiry in Unix milliseconds, 0 = never; the same as
    the entry's field; now in Unix seconds) and ``del`` (nothing, or the namespace and the tags without which the
    entry is to stay), which says how many entries it removed.
    """

    def __init__(
        self,
        url: str | None,
        kind: str,
        *,
        client: redis.Redis | None,
        async_client: redis.asyncio.Redis | None,
        prefix: str,
        timeout: float,
    ) -> None:
        # Importing redis costs 0.1 s: only who uses this store pays it.
        from dispatch_core.stores._redis import Connections

        self._redis = Connections(url, client, async_client, timeout=timeout)
        tag = "{" + prefix + "}"
        # Leases mean the same for every kind of store: processes of several kinds respect each other's.
        self._own, self._lease_prefix = f"{tag}:{kind}:", f"{tag}:l:"
        self._entry_prefix = f"{self._own}e:"

    def close(self) -> None:
        self._redis.close()

    async def aclose(self) -> None:
        await self._redis.aclose()

    @abstractmethod
    def _change(self, op: str, id: str, *rest: Any) -> tuple[Script, tuple[str, ...], tuple[Any, ...]]:
        """The script that changes one entry, its keys and its arguments."""

    def _get(self, id: str, now: float) -> Flow[Entry | None]:
        [row] = yield from self._redis.send(("HGETALL", self._entry_prefix + id))
        entry = rows.entry(id, rows.as_map(row)) if row else None
        return entry if entry is not None and entry.fresh(now) else None

    def _delete(self, id: str) -> Flow[None]:
        yield from self._run(*self._change("del", id))

    def _touch(self, id: str, expires: float | None, now: float) -> Flow[None]:
        ends = rows.milliseconds(expires), rows.instant(expires)
        yield from self._run(*self._change("touch", id, *ends, rows.instant(now)))

    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        removed = 0
        cursor: Any = 0
        while True:
            [(cursor, keys)] = yield from self._redis.send(
                ("SCAN", cursor, "MATCH", rows.literal(self._entry_prefix) + "*", "COUNT", _PAGE)
            )
            marks: list[Any] = []
            if keys:
                marks = yield from self._redis.send(*(("HMGET", key, "namespace", "tags") for key in keys))
            ids = [key.decode().removeprefix(self._entry_prefix) for key in keys]
            removed += yield from self._forget(list(zip(ids, marks, strict=True)), namespace, tags)
            if not int(cursor):
                return removed

    def _forget(
        self, candidates: Sequence[tuple[str, Sequence[bytes | None]]], namespace: str | None, tags: frozenset[str]
    ) -> Flow[int]:
        """Of these, with their namespaces and encoded tags, remove those that are meant."""
        doomed = [
            # On condition that it is still what it was: another process may have rewritten it meanwhile.
            self._change("del", id, *(() if namespace is None and not tags else (owner, carried or b"")))
            for id, (owner, carried) in candidates
            if owner is not None
            and (namespace is None or owner.decode() == namespace)
            and (not tags or not tags.isdisjoint(decoded_tags(carried)))
        ]
        removed = 0
        for start in range(0, len(doomed), _DELETIONS):
            page = doomed[start : start + _DELETIONS]
            removed += sum((yield from self._redis.send(*(_whole(*change) for change in page))))
        return removed

    def _lease(self, id: str, owner: str, seconds: float) -> Flow[bool]:
        milliseconds = max(1, math.ceil(seconds * 1000))
        return bool((yield from self._run(_LEASE, (self._lease_prefix + id,), (owner, milliseconds))))

    def _release(self, id: str, owner: str) -> Flow[None]:
        yield from self._run(_LEASE, (self._lease_prefix + id,), (owner, 0))

    def _run(self, script: Script, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> Flow[Any]:
        """By the script's name; with its text if the server does not know it (any more)."""
        from redis.exceptions import NoScriptError

        try:
            [reply] = yield from self._redis.send(("EVALSHA", script.sha, len(keys), *keys, *arguments))
        except StoreError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
            [reply] = yield from self._redis.send(_whole(script, keys, arguments))
        return reply


def _whole(script: Script, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return ("EVAL", script.text, len(keys), *keys, *arguments)
