"""Stores with leases, in memory and in a file, and processes that share one."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import FlakyStore

from dispatch_core import SQLiteStore


class LeasingFake(FlakyStore):
    """Leases by a clock of the test; ``held`` are ids with their owner and their end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.breaks |= {"lease", "release"}
        self.clock = clock
        self.held: dict[str, tuple[str, float]] = {}
        self._at_once = threading.Lock()

    def lease(self, id: str, *, owner: str, seconds: float) -> bool:
        self._work("lease")
        now = self.clock()
        with self._at_once:
            holder, ends = self.held.get(id, (owner, now))
            if holder != owner and now < ends:
                return False
            self.held[id] = (owner, now + seconds)
            return True

    def release(self, id: str, *, owner: str) -> None:
        self._work("release")
        with self._at_once:
            if self.held.get(id, ("", 0.0))[0] == owner:
                del self.held[id]

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool:
        return await self._off(self.lease, id, owner=owner, seconds=seconds)

    async def arelease(self, id: str, *, owner: str) -> None:
        await self._off(self.release, id, owner=owner)


class LeasingFile(SQLiteStore):
    """Leases in a table of their own, beside the store's file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, timeout=30)
        self._path = f"{path}.leases"
        self._leased("CREATE TABLE IF NOT EXISTS leases (id TEXT PRIMARY KEY, owner TEXT, ends REAL)")

    def _leased(self, statement: str, *values: Any) -> int:
        with sqlite3.connect(self._path, timeout=30) as db:
            changed = db.execute(statement, values).rowcount
        db.close()
        return changed

    def lease(self, id: str, *, owner: str, seconds: float) -> bool:
        now = time.time()
        taken = self._leased(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, "
            "ends = excluded.ends WHERE owner = excluded.owner OR ends <= ?",
            id, owner, now + seconds, now,
        )  # fmt: skip
        return taken == 1

    def release(self, id: str, *, owner: str) -> None:
        self._leased("DELETE FROM leases WHERE id = ? AND owner = ?", id, owner)

    async def alease(self, id: str, *, owner: str, seconds: float) -> bool:
        return await self._off(self.lease, id, owner=owner, seconds=seconds)

    async def arelease(self, id: str, *, owner: str) -> None:
        await self._off(self.release, id, owner=owner)
