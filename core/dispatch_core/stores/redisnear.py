"""Entries in any Redis or Valkey, searched in each process over a mirror of the vectors."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispatch_core._flow import Flow, arun, run
from dispatch_core.stores import _packed as packed
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._redis_store import FlowStore, Script
from dispatch_core.types import Entry, Match, Memory, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from dispatch_core.stores._redis import Command

_CHANGE, _LEASE = Script.named("change"), Script.named("lease")
_JOURNAL_LENGTH = 10_000
_DELETIONS = 100


class RedisNearStore(FlowStore):
    """Needs Redis ≥ 6 or Valkey, no module; a cluster and sentinels will do as well.

    An entry lies in Redis as one string, with the server's own expiry, so that an exact hit is one GET; on an event
    loop all that wait are taken together. Every process mirrors the vectors in memory. A search looks there first and
    then asks, in one round trip, for the entries it found and for news in a journal (a stream) of changes; only
    when there is news is there a second. So what another process has written is found, and one's own writes at once.
    After a gap in the journal, or on a server that came back empty or with older data, the mirror is loaded anew. All
    keys share one hash tag. Rows of the first version, which were hashes, lie under other keys and are ignored.

    How much is kept is the server's to decide: set its ``maxmemory`` and ``maxmemory-policy`` (``allkeys-lfu`` keeps
    what is asked for). What it evicted is not found, and leaves the mirrors when they come upon it; a full server
    that may not evict refuses to store more, with `StoreError`, and still lets entries be deleted.

    Give ``url``: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+cluster://host:port`` or
    ``redis+sentinel://host:port,host:port/service/database`` (``rediss+…`` with TLS); or a ``client``, also a
    `RedisCluster` or one that a `Sentinel` made, and an ``async_client`` if it must be a certain one; clients with
    ``decode_responses`` are refused. ``timeout`` is the deadline of a call in seconds, for clients made from a URL.

    A user with these rights suffices, here for the prefix ``dispatch``; a cluster's client needs ``+cluster|slots
    +cluster|shards +cluster|nodes +command`` besides, and `memory` ``+memory|usage`` to ask the server::

        ACL SETUSER dispatcher on >password resetkeys ~{dispatch}:* resetchannels -@all
            +get +mget +set +del +getrange +setrange +pexpireat +persist +xadd +xrange +scan +eval +evalsha
            +ping +select +hello
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | redis.RedisCluster | None = None,
        async_client: redis.asyncio.Redis | redis.asyncio.RedisCluster | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
    ) -> None:
        # Importing redis costs 0.1 s: only who uses this store pays it.
        from dispatch_core.stores._near import Keys, Mirror
        from dispatch_core.stores._reads import Changes
        from dispatch_core.stores._redis import Connections

        self._redis = Connections(url, client, async_client, timeout=timeout)
        self._keys = Keys.of(prefix)
        self._mirror = Mirror(self._redis, self._keys)
        self._reads = self._mirror.reads
        self._recent = packed.Recent()
        self._changes = Changes(self._redis, (_CHANGE, _LEASE))

    def get(self, id: str, *, now: float) -> Entry | None:
        # Without a flow, which would sequence one step and take as long as that.
        return self._recent.fresh(id, self._reads.value(self._keys.entries + id), now)

    async def aget(self, id: str, *, now: float) -> Entry | None:
        return self._recent.fresh(id, await self._reads.avalue(self._keys.entries + id), now)

    def memory(self, *, samples: int = 0) -> Memory:
        """With ``samples`` the server is asked how much so many of its entries take."""
        return run(self._memory(samples))

    async def amemory(self, *, samples: int = 0) -> Memory:
        return await arun(self._memory(samples))

    def close(self) -> None:
        self._redis.close()

    async def aclose(self) -> None:
        await self._reads.aclose()
        await self._changes.aclose()
        await self._redis.aclose()

    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]:
        mirror = self._mirror
        position, found, mismatch = yield from mirror.look(vector, scope, limit, now)
        reply = yield from mirror.ask([id for id, _ in found])
        ids = [id for id, _ in found]
        if mirror.nothing_since(position, reply):
            raw = mirror.rows(ids, reply)
        else:
            reached, read = yield from mirror.follow(reply)
            position, found, mismatch = yield from mirror.look(vector, scope, limit, now)
            ids = [id for id, _ in found]
            raw = mirror.still_so(reply, ids, position) | read if position == reached else {}
            missing = [id for id in ids if id not in raw]
            if missing:
                raw |= mirror.rows(
                    missing, (yield from self._reads.read([self._keys.entries + id for id in missing]))
                )
        if mismatch is not None:
            raise mismatch
        entries = {id: packed.entry(id, raw[id]) for id in ids}
        gone = [id for id, entry in entries.items() if entry is None]
        if gone:
            mirror.forget(gone, position)
        return [
            Match(entry, score)
            for id, score in found
            if (entry := entries[id]) is not None and entry.scope == scope and entry.fresh(now)
        ]

    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]:
        yield from self._mirror.expect(entry.scope, vector)
        name = _name()
        ends = rows.milliseconds(entry.expires)
        put = self._change("put", entry.id, ends, packed.row(entry, vector), name=name)
        self._mirror.writing(name, entry.id, entry.scope, vector, entry.expires)
        try:
            [before] = yield from self._changes.send(put)
        except BaseException:
            self._mirror.failed(name)
            raise
        self._mirror.wrote(name, before)

    def _touch(self, id: str, expires: float | None, now: float) -> Flow[None]:
        ends = rows.milliseconds(expires), packed.ends(expires), rows.instant(expires)
        name = _name()
        [before] = yield from self._changes.send(self._change("touch", id, *ends, rows.instant(now), name=name))
        self._mirror.touched(name, before, id, expires)

    def _delete(self, id: str) -> Flow[None]:
        yield from self._changes.send(self._change("del", id))

    def _clear(self, namespace: str | None, tags: frozenset[str]) -> Flow[int]:
        removed = 0
        cursor: Any = b"0"
        while True:
            [(cursor, keys)] = yield from self._redis.call(self._mirror.scan(cursor))
            doomed = yield from self._doomed(self._mirror.ids(keys), namespace, tags)
            for start in range(0, len(doomed), _DELETIONS):
                removed += sum((yield from self._changes.send(*doomed[start : start + _DELETIONS])))
            if not int(cursor):
                return removed

    def _doomed(self, ids: Sequence[str], namespace: str | None, tags: frozenset[str]) -> Flow[list[Command]]:
        """Deletions of those that are to be forgotten."""
        if namespace is None and not tags:
            return [self._change("del", id) for id in ids]
        heads, _ = yield from self._mirror.heads(ids)
        return [
            # On condition that it is still what it was: another process may have rewritten it meanwhile.
            self._change("del", id, packed.MARKS_AT, head.marks)
            for id, head in zip(ids, heads, strict=True)
            if head is not None
            and (namespace is None or head.namespace == namespace)
            and (not tags or not tags.isdisjoint(head.tags))
        ]

    def _lease(self, id: str, owner: str, seconds: float) -> Flow[bool]:
        return (yield from self._leased(id, owner, max(1, math.ceil(seconds * 1000))))

    def _release(self, id: str, owner: str) -> Flow[None]:
        yield from self._leased(id, owner, 0)

    def _leased(self, id: str, owner: str, milliseconds: int) -> Flow[bool]:
        [held] = yield from self._changes.send(
            ("EVALSHA", _LEASE.sha, 1, self._keys.leases + id, owner, milliseconds)
        )
        return bool(held)

    def _memory(self, samples: int) -> Flow[Memory]:
        index = self._mirror.index
        if samples < 1:
            return Memory(len(index), index.nbytes)
        [(_, keys)] = yield from self._redis.send(self._mirror.scan(0))
        taken = keys[:samples]
        sizes = (yield from self._redis.send(*(("MEMORY USAGE", key) for key in taken))) if taken else []
        there = [size for size in sizes if size is not None]
        return Memory(len(index), index.nbytes, round(len(index) * sum(there) / len(there)) if there else 0)

    def _change(self, op: str, id: str, *rest: Any, name: bytes | None = None) -> Command:
        keys = (self._keys.entries + id, self._keys.sequence, self._keys.journal)
        return ("EVALSHA", _CHANGE.sha, len(keys), *keys, op, id, _JOURNAL_LENGTH, name or _name(), *rest)


def _name() -> bytes:
    """A name that no other change has."""
    return secrets.token_hex(8).encode()
