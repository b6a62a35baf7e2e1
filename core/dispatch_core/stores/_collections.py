"""Stores in databases that keep vectors of one length per collection: which collection an entry lies in, and why.

Entries with a vector lie in the collection of its length, those without one in a collection of their own. The engines
only know how to read and write one collection.
"""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from dispatch_core.errors import ConfigError, DimensionMismatch, DispatchError, StoreError
from dispatch_core.stores._twins import BlockingStore
from dispatch_core.types import Entry, Match, Vector

LAYOUT = "v1"
NO_VECTOR = 0
_SWEEP_EVERY, _SWEEP_MARGIN = 1_000, 60.0
_STRIPES = 64


class Engine(Protocol):
    """One database. ``dims`` names a collection; `NO_VECTOR` is that of the entries without one.

    May raise whatever its client raises; the store wraps it.
    """

    def collections(self) -> set[int]:
        """Those that exist, ready to be used."""
        ...

    def create(self, dims: int) -> None:
        """Make it, unless it exists, ready to be used."""
        ...

    def get(self, dims: int, id: str) -> Entry | None:
        """Also one that has expired."""
        ...

    def search(self, dims: int, vector: Vector, scope: str, limit: int, now: float) -> list[Match]: ...

    def put(self, dims: int, entry: Entry, vector: Vector | None) -> None: ...

    def delete(self, dims: int, id: str) -> None: ...

    def touch(self, dims: int, id: str, expires: float | None, now: float) -> bool:
        """Whether the entry is in this collection."""
        ...

    def clear(self, dims: int, namespace: str | None, tags: frozenset[str]) -> int: ...

    def sweep(self, dims: int, before: float) -> None:
        """Forget what had expired by then."""
        ...

    def holds(self, dims: int, scope: str) -> bool: ...

    def close(self) -> None: ...


class CollectionStore(BlockingStore):
    """The logic of the port over an `Engine`, which is made at the first call that needs it.

    Calls of one process about one entry are taken one at a time; ``lock``, if given, one at a time altogether, for an
    engine that must not be asked twice at once. Who waits longer than ``timeout`` seconds gets `StoreError`.
    """

    def __init__(self, kind: str, *, timeout: float, lock: threading.RLock | None = None) -> None:
        if timeout <= 0:
            raise ConfigError(f"timeout is a positive number of seconds, got {timeout}")
        self._kind = kind
        self._timeout = timeout
        self._whole = lock
        self._stripes = [lock or threading.RLock() for _ in range(_STRIPES)]
        self._opening = threading.RLock()
        self._open: Engine | None = None
        self._process = os.getpid()
        self._closed = False
        self._known: frozenset[int] = frozenset()
        self._puts = 0

    @abstractmethod
    def _connect(self) -> Engine: ...

    def get(self, id: str, *, now: float) -> Entry | None:
        with self._using("read") as engine:
            found = self._find(engine, id, self._collections(engine))
            return found if found is not None and found.fresh(now) else None

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        dims = len(vector)
        with self._using("search") as engine:
            there = dims in self._known or dims in self._look(engine)
            found = engine.search(dims, vector, scope, limit, now) if there else []
            if not found:
                self._refuse_another_length(engine, scope, dims)
            return found

    def put(self, entry: Entry, vector: Vector | None) -> None:
        dims = NO_VECTOR if vector is None else len(vector)
        with self._using("write", entry.id) as engine:
            there = dims in self._known or dims in self._look(engine)
            if vector is not None:
                self._refuse_another_length(engine, entry.scope, dims)
            if not there:
                self._create(engine, dims)
            engine.put(dims, entry, vector)
            for other in self._collections(engine) - {dims}:
                engine.delete(other, entry.id)
            self._puts += 1
            if self._puts % _SWEEP_EVERY == 0:
                # Other clocks may be a little behind, and still move the end of a life that is over by ours.
                for other in self._known:
                    engine.sweep(other, entry.created - _SWEEP_MARGIN)

    def delete(self, id: str) -> None:
        with self._using("delete", id) as engine:
            for dims in self._look(engine):
                engine.delete(dims, id)

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        with self._using("touch", id) as engine:
            for dims in _vectors_first(self._collections(engine)):
                if engine.touch(dims, id, expires, now):
                    return

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        with self._using("clear") as engine:
            return sum(engine.clear(dims, namespace, frozenset(tags)) for dims in self._look(engine))

    def close(self) -> None:
        """Calls after it raise `StoreError`."""
        with self._opening:
            engine, self._open, self._closed = self._open, None, True
        if engine is not None:
            engine.close()

    def _find(self, engine: Engine, id: str, among: frozenset[int]) -> Entry | None:
        for dims in _vectors_first(among):
            found = engine.get(dims, id)
            if found is not None:
                return found
        return None

    def _refuse_another_length(self, engine: Engine, scope: str, dims: int) -> None:
        for other in self._known - {dims, NO_VECTOR}:
            if engine.holds(other, scope):
                raise DimensionMismatch(other, dims)

    def _collections(self, engine: Engine) -> frozenset[int]:
        """Those known; until there is one for vectors, another process may have made it since."""
        return self._known if self._known - {NO_VECTOR} else self._look(engine)

    def _look(self, engine: Engine) -> frozenset[int]:
        self._known = frozenset(engine.collections())
        return self._known

    def _create(self, engine: Engine, dims: int) -> None:
        """The one for entries without vectors always with it, so that nobody has to look for it later."""
        with self._opening:
            for wanted in {NO_VECTOR, dims} - self._known:
                engine.create(wanted)
                self._known |= {wanted}

    @contextmanager
    def _using(self, what: str, id: str | None = None) -> Iterator[Engine]:
        """The engine, its errors as `StoreError`; what it says of them may quote an entry and stays in the cause."""
        if os.getpid() != self._process:
            # The engines' threads did not come along, and calls would wait for them for ever.
            raise StoreError(f"{self._kind} store was opened before this process forked: open one in each process")
        lock = self._whole if id is None else self._stripes[hash(id) % _STRIPES]
        if lock is not None and not lock.acquire(timeout=self._timeout):
            raise StoreError(f"{self._kind} could not {what}: busy for {self._timeout} s")
        try:
            yield self._engine()
        except DispatchError:
            raise
        except Exception as error:
            # Perhaps a server that came back empty: what exists is looked up anew.
            self._known = frozenset()
            raise StoreError(f"{self._kind} could not {what}: {type(error).__name__}") from error
        finally:
            if lock is not None:
                lock.release()

    def _engine(self) -> Engine:
        engine = self._open
        if engine is None:
            with self._opening:
                if self._closed:
                    raise StoreError(f"{self._kind} store is closed")
                if self._open is None:
                    self._open = self._connect()
                engine = self._open
        return engine


def collection_prefix(prefix: str) -> str:
    """What the names of a store's collections begin with; the length of the vectors follows."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", prefix):
        raise ConfigError(f"prefix is a letter and up to 63 letters, digits and underscores, got {prefix!r}")
    return f"{prefix}_{LAYOUT}_"


def lengths(names: Sequence[str], prefix: str) -> set[int]:
    """The lengths of vectors that collections of these names hold."""
    ends = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return {int(end) for end in ends if end.isdecimal()}


def _vectors_first(dims: frozenset[int]) -> list[int]:
    return sorted(dims, reverse=True)
