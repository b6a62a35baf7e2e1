"""What a store in a SQLite file promises beyond the contract: old files, full disks, a journal that stays short."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from fakes import Either, made
from places import EAST, HERE, NORTH, NOW, found

from dispatch_core import SQLiteStore, StoreError
from dispatch_core.keys import digest
from dispatch_core.stores import sqlite


async def _found(store: Either) -> list[str]:
    return sorted(await found(store, limit=10_000))


def _ids(*names: str) -> list[str]:
    return sorted(digest(name) for name in names)


async def test_a_file_whose_journal_was_trimmed_is_loaded_anew(tmp_path, form, monkeypatch):
    monkeypatch.setattr(sqlite, "_KEPT_CHANGES", 5)
    monkeypatch.setattr(sqlite, "_TRIM_EVERY", 10)
    one, other = (Either(SQLiteStore(tmp_path / "cache.db", timeout=20), form) for _ in range(2))
    await one.put(made("a"), EAST)
    assert await _found(other) == _ids("a")
    await one.delete(digest("a"))
    names = [f"{number}" for number in range(50)]
    for name in names:
        await one.put(made(name), EAST)
    assert await _found(other) == _ids(*names)
    for store in (one, other):
        await store.close()


async def test_expired_rows_leave_the_file_in_time(tmp_path, form, monkeypatch):
    monkeypatch.setattr(sqlite, "_TRIM_EVERY", 10)
    store = Either(SQLiteStore(tmp_path / "cache.db"), form)
    await store.put(made("old", expires=500.0), EAST)
    for number in range(10):
        await store.put(made(f"{number}"), EAST)
    # Seen from before its expiry it would still be there.
    assert await store.get(digest("old"), now=1.0) is None
    await store.close()


_BEFORE_VERSIONS = """
CREATE TABLE IF NOT EXISTS entries (
    id TEXT PRIMARY KEY, namespace TEXT NOT NULL, scope TEXT NOT NULL, text BLOB NOT NULL, payload BLOB NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, created REAL NOT NULL, expires REAL, vector BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_namespace ON entries (namespace);
CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires);
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL);
"""


def _old_file(path: Path) -> None:
    """A file as it was written before there were tags."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(_BEFORE_VERSIONS)
        entry = made("a", expires=NOW + 5)
        values = (entry.id, entry.namespace, entry.scope, b"text", b"payload", 3, 4, 1_000.25, NOW + 5)
        db.execute("INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?)", (*values, EAST.tobytes()))
        db.execute("INSERT INTO changes (id) VALUES (?)", (entry.id,))


async def test_a_file_written_before_there_were_tags_is_read_and_written(tmp_path, form):
    path = tmp_path / "cache.db"
    _old_file(path)
    for _ in range(2):
        store = Either(SQLiteStore(path), form)
        assert await store.get(digest("a"), now=NOW) == made("a", expires=NOW + 5)
        assert await _found(store) == _ids("a")
        await store.close()
    store = Either(SQLiteStore(path), form)
    await store.put(made("b", tags=["tag"]), EAST)
    assert await _found(store) == _ids("a", "b")
    assert await store.clear(tags=["tag"]) == 1
    assert await store.clear(digest("ours")) == 1
    await store.close()


def test_many_may_open_an_old_file_at_once(tmp_path):
    path = tmp_path / "cache.db"
    _old_file(path)
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: SQLiteStore(path, timeout=20), range(8)))
    for store in stores:
        assert len(store.search(EAST, scope=HERE, limit=9, now=NOW)) == 1
        store.close()


def test_a_file_of_a_later_version_is_a_store_error_and_left_as_it_is(tmp_path):
    path = tmp_path / "cache.db"
    SQLiteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        with pytest.raises(StoreError, match="99"):
            SQLiteStore(path)
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


async def test_a_journal_of_touches_alone_is_trimmed_too(tmp_path, form, monkeypatch):
    monkeypatch.setattr(sqlite, "_KEPT_CHANGES", 5)
    monkeypatch.setattr(sqlite, "_TRIM_EVERY", 10)
    one, other = (Either(SQLiteStore(tmp_path / "cache.db", timeout=20), form) for _ in range(2))
    await one.put(made("a", expires=NOW + 1), EAST)
    for number in range(50):
        await one.touch(digest("a"), expires=NOW + number + 2, now=NOW)
    [lines] = one.target._db.execute("SELECT count(*) FROM changes").fetchone()
    assert 5 <= lines <= 16
    assert await other.search(EAST, scope=HERE, limit=9, now=NOW + 51) == []
    assert len(await other.search(EAST, scope=HERE, limit=9, now=NOW + 50)) == 1
    for store in (one, other):
        await store.close()


async def test_a_full_disk_is_a_store_error_and_the_store_works_on(tmp_path, form):
    store = Either(SQLiteStore(tmp_path / "cache.db"), form)
    await store.put(made("a"), EAST)
    store.target._db.execute("PRAGMA max_page_count = 30")
    for _ in range(2):
        with pytest.raises(StoreError, match="full"):
            await store.put(made("big", payload=b"x" * 1_000_000), NORTH)
    with pytest.raises(StoreError, match="full"):
        await store.put(made("a", payload=b"x" * 1_000_000), NORTH)
    [match] = await store.search(EAST, scope=HERE, limit=9, now=NOW)
    assert (match.entry, match.score) == (made("a"), pytest.approx(1.0))
    await store.put(made("b"), EAST)
    assert await _found(store) == _ids("a", "b")
    await store.close()


async def test_a_file_locked_by_another_is_a_store_error_and_readable(tmp_path, form):
    path = tmp_path / "cache.db"
    one, other = Either(SQLiteStore(path), form), SQLiteStore(path, timeout=0)
    await one.put(made("a"), EAST)
    other._db.execute("BEGIN IMMEDIATE")
    SQLiteStore(path).close()
    with pytest.raises(StoreError, match="locked"):
        await one.put(made("b"), EAST)
    assert await _found(one) == _ids("a")
    other._db.execute("ROLLBACK")
    await one.put(made("b"), EAST)
    assert await _found(one) == _ids("a", "b")
    other.close()
    await one.close()


async def test_a_closed_file_is_a_store_error(tmp_path, form):
    store = Either(SQLiteStore(tmp_path / "cache.db"), form)
    await store.close()
    for call in (
        store.get(digest("a"), now=NOW),
        store.touch(digest("a"), expires=NOW + 9, now=NOW),
        store.clear(tags=["tag"]),
        store.release("a", owner="one"),
    ):
        with pytest.raises(StoreError):
            await call
