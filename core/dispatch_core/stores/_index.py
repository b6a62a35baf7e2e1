"""Nearest-neighbour search in process, within a scope: exact for thousands of vectors, by candidates for more."""

from __future__ import annotations

import asyncio
import math
import threading

import numpy as np

from dispatch_core.errors import DimensionMismatch
from dispatch_core.stores._block import Block
from dispatch_core.types import Vector

_SWEEP_EVERY = 60.0
_SWEPT_AT_ONCE = 256
# A search among as many takes about as long as handing it to a thread and back.
_LONG = 50_000


class VectorIndex:
    """Ids by the cosine of their vectors, within a scope. Thread-safe.

    All vectors of a scope have one length; another one raises `DimensionMismatch`. A scope that was emptied is free
    again. Vectors that expired over a minute ago are let go while others are searched for, some hundreds at a time.

    Scopes of some thousand vectors are compared in full. In larger ones sign-binary codes choose the candidates to
    compare (`dispatch_core.stores._codes`), without holding up other callers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[str, Block] = {}
        self._scopes: dict[str, str] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self._scopes)

    @property
    def nbytes(self) -> int:
        """Bytes held: exact for vectors and codes, an estimate for the ids."""
        with self._lock:
            return sum(block.nbytes for block in self._blocks.values())

    @property
    def vector_bytes(self) -> int:
        """What the vectors themselves take, without room for more."""
        with self._lock:
            return sum(4 * len(block) * block.dims for block in self._blocks.values())

    def check(self, scope: str, vector: Vector) -> None:
        """Raise `DimensionMismatch` for a vector that `put` would refuse."""
        with self._lock:
            self._check(scope, vector)

    def put(self, id: str, scope: str, vector: Vector, expires: float | None) -> None:
        """Add or replace; ``expires`` is in Unix seconds."""
        with self._lock:
            self._check(scope, vector)
            if self._scopes.get(id, scope) != scope:
                self._forget(id)
            block = self._blocks.get(scope)
            if block is None:
                block = self._blocks[scope] = Block(scope, len(vector))
            block.put(id, vector, math.inf if expires is None else expires)
            self._scopes[id] = block.scope

    def touch(self, id: str, expires: float | None) -> None:
        """Move the end of a vector's life, if it is here."""
        with self._lock:
            scope = self._scopes.get(id)
            if scope is not None:
                self._blocks[scope].touch(id, math.inf if expires is None else expires)

    def remove(self, id: str) -> None:
        with self._lock:
            self._forget(id)

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._scopes.clear()

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> list[tuple[str, float]]:
        """Return up to ``limit`` fresh ids with their cosine, best first."""
        vector = np.ascontiguousarray(vector, np.float32)
        with self._lock:
            self._sweep(now)
            self._check(scope, vector)
            block = self._blocks.get(scope)
            if block is None:
                return []
            scan = block.scan(vector, limit, now)
            if scan is None:
                return block.exact(vector, limit, now)
        try:
            rows = scan.nearest()
        except BaseException:
            with self._lock:
                block.end(scan)
            raise
        with self._lock:
            block.end(scan)
            # A block that was emptied meanwhile is no longer the scope's.
            return block.scored(scan, rows, vector, limit) if self._blocks.get(scope) is block else []

    async def asearch(self, vector: Vector, *, scope: str, limit: int, now: float) -> list[tuple[str, float]]:
        """`search`, in a worker thread if it would hold the event loop for long."""
        block = self._blocks.get(scope)
        if block is None or len(block) < _LONG:
            return self.search(vector, scope=scope, limit=limit, now=now)
        return await asyncio.to_thread(self.search, vector, scope=scope, limit=limit, now=now)

    def _check(self, scope: str, vector: Vector) -> None:
        block = self._blocks.get(scope)
        if block is not None and block.dims != len(vector):
            raise DimensionMismatch(block.dims, len(vector))

    def _sweep(self, now: float) -> None:
        """Scopes that nobody asks for again would keep their expired vectors for ever.

        Others may be a little behind, and still move the end of a life that is over by our ``now``. What is left is
        for the next search: this one is waited for.
        """
        if now < self._swept + _SWEEP_EVERY:
            return
        left = _SWEPT_AT_ONCE
        for block in list(self._blocks.values()):
            overdue = block.overdue(now - _SWEEP_EVERY, left)
            for id in overdue:
                self._forget(id)
            left -= len(overdue)
            if left == 0:
                return
        self._swept = now

    def _forget(self, id: str) -> None:
        scope = self._scopes.pop(id, None)
        if scope is None:
            return
        block = self._blocks[scope]
        block.remove(id)
        if not block.ids:
            del self._blocks[scope]
