"""Entries in this process's memory: the default that needs nothing and forgets on exit."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import ClassVar

from dispatch_core.errors import ConfigError
from dispatch_core.stores import eviction
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._twins import SyncStore
from dispatch_core.types import Entry, Match, Memory, Vector

_PER_ENTRY = 1_000
"""Bytes of an entry's object with its digests and numbers, and of what decides when it gives way."""


class MemoryStore(SyncStore):
    """Thread-safe; holds at most ``max_entries``, and of payloads, texts and vectors at most ``max_bytes`` together.

    When it is full, those that have expired give way first, then those whose keeping saves the fewest tokens for
    their size (`dispatch_core.stores.eviction`). An entry larger than ``max_bytes`` is not kept.
    """

    at_hand: ClassVar[bool] = True
    """Its calls take microseconds, in both forms, and none fails for a reason of its own."""

    def __init__(self, *, max_entries: int = 100_000, max_bytes: int | None = None) -> None:
        if max_entries < 1:
            raise ConfigError(f"max_entries must be at least 1, got {max_entries}")
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError(f"max_bytes must be at least 1, or None for no bound, got {max_bytes}")
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._index = VectorIndex()
        self._cap = eviction.Cap(max_entries, max_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, id: str, *, now: float) -> Entry | None:
        # Without the lock: a look into a dict is one step for all threads, and uses that are miscounted are no harm.
        entry = self._entries.get(id)
        if entry is None:
            return None
        if entry.expires is not None and now >= entry.expires:
            return self._drop_expired(id, now)
        self._cap.hit(id)
        return entry

    def _drop_expired(self, id: str, now: float) -> Entry | None:
        with self._lock:
            entry = self._entries.get(id)
            if entry is not None and not entry.fresh(now):
                self.delete(id)
                return None
            return entry

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return self._matches(self._index.search(vector, scope=scope, limit=limit, now=now), scope)

    async def asearch(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return self._matches(await self._index.asearch(vector, scope=scope, limit=limit, now=now), scope)

    def _matches(self, found: Sequence[tuple[str, float]], scope: str) -> Sequence[Match]:
        with self._lock:
            # Without the lock during the search, some may have left or moved since.
            entries = [(self._entries.get(id), score) for id, score in found]
            matches = [Match(entry, score) for entry, score in entries if entry is not None and entry.scope == scope]
            if matches:
                # The others are neighbours to compare with: nobody is served them.
                self._cap.hit(matches[0].entry.id)
            return matches

    def put(self, entry: Entry, vector: Vector | None) -> None:
        with self._lock:
            if vector is not None:
                self._index.put(entry.id, entry.scope, vector, entry.expires)
            else:
                self._index.remove(entry.id)
            self._entries[entry.id] = entry
            gone = self._cap.admit(
                entry.id,
                cost=eviction.cost(entry.usage.total, entry.tombstone),
                size=eviction.size(entry, vector),
                expires=entry.expires,
                now=entry.created,
            )
            for id in gone:
                self.delete(id)

    def delete(self, id: str) -> None:
        with self._lock:
            self._entries.pop(id, None)
            self._index.remove(id)
            self._cap.remove(id)

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        with self._lock:
            entry = self._entries.get(id)
            if entry is not None and entry.fresh(now):
                self._entries[id] = replace(entry, expires=expires)
                self._index.touch(id, expires)
                self._cap.touch(id, expires)

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        with self._lock:
            if namespace is None and not tags:
                count = len(self._entries)
                self._entries.clear()
                self._index.clear()
                self._cap.clear()
                return count
            wanted = frozenset(tags)
            ids = [
                entry.id
                for entry in self._entries.values()
                if (namespace is None or entry.namespace == namespace)
                and (not wanted or not wanted.isdisjoint(entry.tags))
            ]
            for id in ids:
                self.delete(id)
            return len(ids)

    def memory(self, *, samples: int = 0) -> Memory:
        with self._lock:
            texts = self._cap.bytes - self._index.vector_bytes
            return Memory(len(self._entries), texts + _PER_ENTRY * len(self._entries) + self._index.nbytes)

    async def amemory(self, *, samples: int = 0) -> Memory:
        return self.memory(samples=samples)

    def close(self) -> None:
        """Nothing to release; the entries stay until the store is gone."""
