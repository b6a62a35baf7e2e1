"""Entries in this process's memory: the default that needs nothing and forgets on exit."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from dispatch_core.errors import ConfigError
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._twins import SyncStore
from dispatch_core.types import Entry, Match, Vector


class MemoryStore(SyncStore):
    """Thread-safe; holds at most ``max_entries``, then the oldest gives way."""

    def __init__(self, *, max_entries: int = 100_000) -> None:
        if max_entries < 1:
            raise ConfigError(f"max_entries must be at least 1, got {max_entries}")
        self._max_entries = max_entries
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._index = VectorIndex()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, id: str, *, now: float) -> Entry | None:
        with self._lock:
            entry = self._entries.get(id)
            if entry is None or entry.fresh(now):
                return entry
            self.delete(id)
            return None

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        with self._lock:
            found = self._index.search(vector, scope=scope, limit=limit, now=now)
            return [Match(self._entries[id], score) for id, score in found]

    def put(self, entry: Entry, vector: Vector | None) -> None:
        with self._lock:
            if vector is not None:
                self._index.put(entry.id, entry.scope, vector, entry.expires)
            else:
                self._index.remove(entry.id)
            self._entries.pop(entry.id, None)
            self._entries[entry.id] = entry
            while len(self._entries) > self._max_entries:
                self.delete(next(iter(self._entries)))

    def delete(self, id: str) -> None:
        with self._lock:
            self._entries.pop(id, None)
            self._index.remove(id)

    def clear(self, namespace: str | None = None) -> None:
        with self._lock:
            if namespace is None:
                self._entries.clear()
                self._index.clear()
                return
            for id in [e.id for e in self._entries.values() if e.namespace == namespace]:
                self.delete(id)

    def close(self) -> None:
        """Nothing to release; the entries stay until the store is gone."""
