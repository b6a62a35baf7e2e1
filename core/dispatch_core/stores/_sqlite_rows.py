"""How an entry lies in a SQLite file, and how files of earlier versions become today's.

Texts and tags may hold lone surrogates, which SQLite's TEXT refuses: they are kept as bytes.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from dispatch_core.errors import StoreError
from dispatch_core.stores._codec import decoded, decoded_tags, encoded, encoded_tags
from dispatch_core.types import Entry, Usage, Vector

COLUMNS = "id, namespace, scope, text, payload, input_tokens, output_tokens, created, expires, stale, tags, tombstone"

_MIGRATIONS = (
    (
        """CREATE TABLE IF NOT EXISTS entries (
            id TEXT PRIMARY KEY, namespace TEXT NOT NULL, scope TEXT NOT NULL, text BLOB NOT NULL,
            payload BLOB NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
            created REAL NOT NULL, expires REAL, vector BLOB
        ) WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS entries_by_namespace ON entries (namespace)",
        "CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires)",
        "CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL)",
        "ALTER TABLE entries ADD COLUMN stale REAL",
        "ALTER TABLE entries ADD COLUMN tags BLOB",
        "ALTER TABLE entries ADD COLUMN tombstone INTEGER NOT NULL DEFAULT 0",
        # An entry's tags stand in its row, to be read with it, and here, to be found.
        "CREATE TABLE tagged (tag BLOB NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID",
        "CREATE INDEX tagged_by_id ON tagged (id)",
        "CREATE TRIGGER untag AFTER DELETE ON entries BEGIN DELETE FROM tagged WHERE id = OLD.id; END",
        "CREATE TABLE leases (id TEXT PRIMARY KEY, owner TEXT NOT NULL, ends REAL NOT NULL) WITHOUT ROWID",
    ),
)
"""The statements that lead from version 0, an empty file or one from before there were versions, to 1, and so on."""


def is_current(db: sqlite3.Connection) -> bool:
    """Whether the file has today's version; one of a later version raises `StoreError`."""
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise StoreError(f"the file has version {version} and this program knows {len(_MIGRATIONS)}: update it")
    return bool(version == len(_MIGRATIONS))


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file to today's version; inside a transaction, for several processes may open it at once."""
    [version] = db.execute("PRAGMA user_version").fetchone()
    for statements in _MIGRATIONS[version:]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def write(db: sqlite3.Connection, entry: Entry, vector: Vector | None) -> None:
    """Write or replace one row."""
    # REPLACE would leave the tags of what it replaces: it calls no trigger.
    db.execute("DELETE FROM entries WHERE id = ?", (entry.id,))
    db.execute(
        f"INSERT INTO entries ({COLUMNS}, vector) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            *(entry.id, entry.namespace, entry.scope, encoded(entry.text), entry.payload),
            *(entry.usage.input_tokens, entry.usage.output_tokens),
            *(entry.created, entry.expires, entry.stale),
            encoded_tags(entry.tags) if entry.tags else None,
            entry.tombstone,
            None if vector is None else np.asarray(vector, dtype="<f4").tobytes(),
        ),
    )
    db.executemany("INSERT OR IGNORE INTO tagged VALUES (?, ?)", [(encoded(tag), entry.id) for tag in entry.tags])


def entry(row: tuple[Any, ...]) -> Entry:
    """Of a row of `COLUMNS`."""
    id, namespace, scope, text, payload, input_tokens, output_tokens, created, expires, stale, tags, tombstone = row
    return Entry(
        id=id,
        namespace=namespace,
        scope=scope,
        text=decoded(text),
        payload=payload,
        usage=Usage(input_tokens, output_tokens),
        created=created,
        expires=expires,
        stale=stale,
        tags=decoded_tags(tags),
        tombstone=bool(tombstone),
    )
