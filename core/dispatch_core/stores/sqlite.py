"""Entries in one SQLite file: a default without a server that survives restarts and is shared by processes."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dispatch_core.errors import ConfigError, StoreError
from dispatch_core.stores import _sqlite_rows as rows
from dispatch_core.stores import eviction
from dispatch_core.stores._codec import encoded
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._twins import BlockingStore
from dispatch_core.types import Entry, Match, Memory, Vector

_KEPT_CHANGES = 10_000
_TRIM_EVERY = 1_000
_MIRRORED = (
    "e.id, e.scope, e.vector, e.expires, e.input_tokens + e.output_tokens, e.tombstone, "
    "length(e.payload) + length(e.text) + ifnull(length(e.vector), 0)"
)


class SQLiteStore(BlockingStore):
    """One file in WAL mode, with the vectors mirrored in memory for the search.

    Every write leaves a line in a journal of changes; before a search each process reads the lines it has not seen,
    so several processes may share the file. A process that fell behind the kept journal loads all anew.

    Holds at most ``max_entries`` (None: as many as come). Beyond, those that have expired give way first, then those
    whose keeping saves the fewest tokens for their size, as far as this process has seen them used
    (`dispatch_core.stores.eviction`).

    Waits at most ``timeout`` seconds for another process's write. ``clock`` returns Unix seconds, for leases. Raises
    `StoreError`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_entries: int | None = None,
        timeout: float = 0.25,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_entries is not None and max_entries < 1:
            raise ConfigError(f"max_entries must be at least 1, or None for no bound, got {max_entries}")
        self._lock = threading.RLock()
        self._clock = clock
        self._index = VectorIndex()
        self._cap = None if max_entries is None else eviction.Cap(max_entries)
        self._seen = -1
        self._trim_at = 0
        with _wrapped(f"open {path}", self._lock):
            self._db = sqlite3.connect(str(path), timeout=timeout, check_same_thread=False, isolation_level=None)
            self._open(timeout)

    def get(self, id: str, *, now: float) -> Entry | None:
        with _wrapped("read", self._lock):
            found = self._db.execute(
                f"SELECT {rows.COLUMNS} FROM entries WHERE id = ? AND (expires IS NULL OR expires > ?)", (id, now)
            ).fetchone()
            if found is None:
                return None
            if self._cap is not None:
                self._cap.hit(id)
        return rows.entry(found)

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        with _wrapped("search", self._lock):
            self._follow()
            found = self._index.search(vector, scope=scope, limit=limit, now=now)
            if found and self._cap is not None:
                # The others are neighbours to compare with: nobody is served them.
                self._cap.hit(found[0][0])
            marks = ",".join("?" * len(found))
            read = self._db.execute(
                f"SELECT {rows.COLUMNS} FROM entries WHERE id IN ({marks})", [id for id, _ in found]
            ).fetchall()
        entries = {row[0]: rows.entry(row) for row in read}
        return [Match(entries[id], score) for id, score in found if id in entries]

    def put(self, entry: Entry, vector: Vector | None) -> None:
        with _wrapped("write", self._lock), self._transaction():
            self._follow()
            if vector is not None:
                # First, because it refuses a wrong length.
                self._index.put(entry.id, entry.scope, vector, entry.expires)
            else:
                self._index.remove(entry.id)
            rows.write(self._db, entry, vector)
            seq = self._journal(entry.id)
            for id in self._admit(entry, vector):
                self._index.remove(id)
                self._db.execute("DELETE FROM entries WHERE id = ?", (id,))
                seq = self._journal(id)
            # Nobody else has written since the mirror followed: these lines are the next.
            self._seen = seq
            self._trim(seq, entry.created)

    def delete(self, id: str) -> None:
        with _wrapped("delete", self._lock), self._transaction():
            self._delete_where("id = ?", (id,))

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        with _wrapped("touch", self._lock), self._transaction():
            moved = self._db.execute(
                "UPDATE entries SET expires = ? WHERE id = ? AND (expires IS NULL OR expires > ?)", (expires, id, now)
            )
            if moved.rowcount:
                self._trim(self._journal(id), now)

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        ours, owner = ("1", ()) if namespace is None else ("namespace = ?", (namespace,))
        with _wrapped("clear", self._lock), self._transaction():
            if not tags:
                return self._delete_where(ours, owner)
            tagged = f"{ours} AND id IN (SELECT id FROM tagged WHERE tag = ?)"
            return sum(self._delete_where(tagged, (*owner, encoded(tag))) for tag in set(tags))

    def lease(self, id: str, *, owner: str, seconds: float) -> bool:
        now = self._clock()
        with _wrapped("lease", self._lock), self._transaction():
            self._db.execute("DELETE FROM leases WHERE ends <= ?", (now,))
            taken = self._db.execute(
                "INSERT INTO leases VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET ends = excluded.ends WHERE owner = excluded.owner",
                (id, owner, now + seconds),
            )
            return taken.rowcount == 1

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool:
        return await self._off(self.lease, id, owner=owner, seconds=seconds)

    def release(self, id: str, *, owner: str) -> None:
        with _wrapped("release", self._lock):
            self._db.execute("DELETE FROM leases WHERE id = ? AND owner = ?", (id, owner))

    async def arelease(self, id: str, *, owner: str) -> None:
        await self._off(self.release, id, owner=owner)

    def memory(self, *, samples: int = 0) -> Memory:
        """With ``samples`` the size of the file is told as well, without what its journal still holds."""
        index = self._index
        if samples < 1:
            return Memory(len(index), index.nbytes)
        with _wrapped("measure", self._lock):
            [pages] = self._db.execute("PRAGMA page_count").fetchone()
            [page] = self._db.execute("PRAGMA page_size").fetchone()
        return Memory(len(index), index.nbytes, pages * page)

    async def amemory(self, *, samples: int = 0) -> Memory:
        return await self._off(self.memory, samples=samples)

    def close(self) -> None:
        with _wrapped("close", self._lock):
            self._db.close()

    def _open(self, timeout: float) -> None:
        try:
            # The first process turns WAL on; with a busy file that is worth a longer wait than a lookup is.
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            if not rows.is_current(self._db):
                with self._transaction():
                    rows.migrate(self._db)
            self._db.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")
        except BaseException:
            self._db.close()
            raise

    def _journal(self, id: str) -> int:
        return self._db.execute("INSERT INTO changes (id) VALUES (?)", (id,)).lastrowid or 0

    def _trim(self, seq: int, now: float) -> None:
        """Now and then, forget what has expired and the old lines of the journal."""
        if seq >= self._trim_at:
            self._trim_at = seq + _TRIM_EVERY
            self._delete_where("expires <= ?", (now,))
            self._db.execute("DELETE FROM changes WHERE seq <= ?", (seq - _KEPT_CHANGES,))

    def _delete_where(self, condition: str, values: tuple[str | bytes | float, ...]) -> int:
        self._db.execute(f"INSERT INTO changes (id) SELECT id FROM entries WHERE {condition}", values)
        return self._db.execute(f"DELETE FROM entries WHERE {condition}", values).rowcount

    def _admit(self, entry: Entry, vector: Vector | None) -> list[str]:
        """Those that give way for the entry."""
        if self._cap is None:
            return []
        cost, size = eviction.cost(entry.usage.total, entry.tombstone), eviction.size(entry, vector)
        return self._cap.admit(entry.id, cost=cost, size=size, expires=entry.expires, now=entry.created)

    def _follow(self) -> None:
        """Bring the mirror up to the journal: only what is new, or everything after a gap."""
        first, last = self._db.execute("SELECT min(seq), max(seq) FROM changes").fetchone()
        if last is None or last == self._seen:
            # The first line of an empty journal will be 1.
            self._seen = last or 0
            return
        if self._seen < first - 1:
            self._forget()
            changes = self._db.execute(f"SELECT e.id, {_MIRRORED} FROM entries e")
        else:
            changes = self._db.execute(
                f"SELECT c.id, {_MIRRORED} FROM changes c LEFT JOIN entries e ON e.id = c.id WHERE c.seq > ?",
                (self._seen,),
            )
        for changed, id, scope, vector, expires, tokens, tombstone, size in changes:
            if vector is None:
                self._index.remove(changed)
            else:
                self._index.put(changed, scope, np.frombuffer(vector, dtype="<f4"), expires)
            if self._cap is None:
                continue
            if id is None:
                self._cap.remove(changed)
            else:
                self._cap.add(id, cost=eviction.cost(tokens, bool(tombstone)), size=size, expires=expires)
        self._seen = last

    def _forget(self) -> None:
        """What was mirrored is to be read anew."""
        self._index.clear()
        if self._cap is not None:
            self._cap.clear()
        self._seen = -1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            # What the mirror took from this transaction never happened.
            self._forget()
            raise


@contextmanager
def _wrapped(what: str, lock: threading.RLock) -> Iterator[None]:
    try:
        with lock:
            yield
    except sqlite3.Error as error:
        raise StoreError(f"SQLite could not {what}: {error}") from error
