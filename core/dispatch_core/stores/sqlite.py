"""Entries in one SQLite file: a default without a server that survives restarts and is shared by processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dispatch_core.errors import StoreError
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._twins import BlockingStore
from dispatch_core.types import Entry, Match, Usage, Vector

# Texts may hold lone surrogates, which SQLite's TEXT refuses: they are kept as bytes.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT PRIMARY KEY, namespace TEXT NOT NULL, scope TEXT NOT NULL, text BLOB NOT NULL, payload BLOB NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, created REAL NOT NULL, expires REAL, vector BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_namespace ON entries (namespace);
CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires);
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL);
"""
_COLUMNS = "id, namespace, scope, text, payload, input_tokens, output_tokens, created, expires"
_KEPT_CHANGES = 10_000
_TRIM_EVERY = 1_000
_Row = tuple[str, str, str, bytes, bytes, int, int, float, float | None]


class SQLiteStore(BlockingStore):
    """One file in WAL mode, with the vectors mirrored in memory for exact search.

    Every write leaves a line in a journal of changes; before a search each process reads the lines it has not seen,
    so several processes may share the file. A process that fell behind the kept journal loads all anew.
    Waits at most ``timeout`` seconds for another process's write. Raises `StoreError`.
    """

    def __init__(self, path: str | Path, *, timeout: float = 0.25) -> None:
        self._lock = threading.RLock()
        self._index = VectorIndex()
        self._seen = -1
        with _wrapped(f"open {path}", self._lock):
            self._db = sqlite3.connect(str(path), timeout=timeout, check_same_thread=False, isolation_level=None)
            # The first process turns WAL on; with a busy file that is worth a longer wait than a lookup is.
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")

    def get(self, id: str, *, now: float) -> Entry | None:
        with _wrapped("read", self._lock):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE id = ? AND (expires IS NULL OR expires > ?)", (id, now)
            ).fetchall()
        return _entry(rows[0]) if rows else None

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        with _wrapped("search", self._lock):
            self._follow()
            found = self._index.search(vector, scope=scope, limit=limit, now=now)
            marks = ",".join("?" * len(found))
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE id IN ({marks})", [id for id, _ in found]
            ).fetchall()
        entries = {row[0]: _entry(row) for row in rows}
        return [Match(entries[id], score) for id, score in found if id in entries]

    def put(self, entry: Entry, vector: Vector | None) -> None:
        blob = None if vector is None else np.asarray(vector, dtype="<f4").tobytes()
        with _wrapped("write", self._lock), self._transaction():
            self._follow()
            if vector is not None:
                # First, because it refuses a wrong length.
                self._index.put(entry.id, entry.scope, vector, entry.expires)
            else:
                self._index.remove(entry.id)
            self._db.execute(
                f"INSERT OR REPLACE INTO entries ({_COLUMNS}, vector) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    entry.id,
                    entry.namespace,
                    entry.scope,
                    entry.text.encode("utf-8", "surrogatepass"),
                    entry.payload,
                    entry.usage.input_tokens,
                    entry.usage.output_tokens,
                    entry.created,
                    entry.expires,
                    blob,
                ),
            )
            seq = self._db.execute("INSERT INTO changes (id) VALUES (?)", (entry.id,)).lastrowid or 0
            if seq == self._seen + 1:
                self._seen = seq
            if seq % _TRIM_EVERY == 0:
                self._delete_where("expires <= ?", (entry.created,))
                self._db.execute("DELETE FROM changes WHERE seq <= ?", (seq - _KEPT_CHANGES,))

    def delete(self, id: str) -> None:
        with _wrapped("delete", self._lock), self._transaction():
            self._delete_where("id = ?", (id,))

    def clear(self, namespace: str | None = None) -> None:
        with _wrapped("clear", self._lock), self._transaction():
            if namespace is None:
                self._delete_where("1", ())
            else:
                self._delete_where("namespace = ?", (namespace,))

    def close(self) -> None:
        with _wrapped("close", self._lock):
            self._db.close()

    def _delete_where(self, condition: str, values: tuple[str | float, ...]) -> None:
        self._db.execute(f"INSERT INTO changes (id) SELECT id FROM entries WHERE {condition}", values)
        self._db.execute(f"DELETE FROM entries WHERE {condition}", values)

    def _follow(self) -> None:
        """Bring the mirror up to the journal: only what is new, or everything after a gap."""
        first, last = self._db.execute("SELECT min(seq), max(seq) FROM changes").fetchone()
        if last is None or last == self._seen:
            self._seen = -1 if last is None else last
            return
        if self._seen < first - 1:
            self._index.clear()
            rows = self._db.execute("SELECT id, scope, vector, expires, id FROM entries")
        else:
            rows = self._db.execute(
                "SELECT e.id, e.scope, e.vector, e.expires, c.id FROM changes c LEFT JOIN entries e ON e.id = c.id "
                "WHERE c.seq > ?",
                (self._seen,),
            )
        for id, scope, vector, expires, changed_id in rows:
            if id is None or vector is None:
                self._index.remove(changed_id)
            else:
                self._index.put(id, scope, np.frombuffer(vector, dtype="<f4"), expires)
        self._seen = last

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
            self._index.clear()
            self._seen = -1
            raise


@contextmanager
def _wrapped(what: str, lock: threading.RLock) -> Iterator[None]:
    try:
        with lock:
            yield
    except sqlite3.Error as error:
        raise StoreError(f"SQLite could not {what}: {error}") from error


def _entry(row: _Row) -> Entry:
    id, namespace, scope, text, payload, input_tokens, output_tokens, created, expires = row
    return Entry(
        id=id,
        namespace=namespace,
        scope=scope,
        text=text.decode("utf-8", "surrogatepass"),
        payload=payload,
        usage=Usage(input_tokens, output_tokens),
        created=created,
        expires=expires,
    )
