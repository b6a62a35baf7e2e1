"""Exact nearest-neighbour search in process: one contiguous float32 matrix per scope."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dispatch_core.errors import DimensionMismatch
from dispatch_core.types import Matrix, Vector

_FIRST_ROWS = 8
_SWEEP_EVERY = 60.0
_PER_ID = 320
"""Bytes of an id of 40 digits, its row's number, and its places in a list and two dictionaries."""


@dataclass(slots=True)
class _Block:
    """The vectors of one scope. Rows are kept dense: a removed row is filled by the last one."""

    vectors: Matrix
    expires: NDArray[np.float64]
    ids: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, dims: int) -> _Block:
        return cls(np.empty((_FIRST_ROWS, dims), np.float32), np.empty(_FIRST_ROWS, np.float64))

    def put(self, id: str, vector: Vector, expires: float) -> None:
        row = self.rows.get(id)
        if row is None:
            row = self.rows[id] = len(self.ids)
            self.ids.append(id)
            if row == len(self.vectors):
                self._grow()
        self.vectors[row] = vector
        self.expires[row] = expires

    def remove(self, id: str) -> None:
        row, last = self.rows.pop(id), len(self.ids) - 1
        moved = self.ids.pop()
        if row != last:
            self.vectors[row], self.expires[row] = self.vectors[last], self.expires[last]
            self.ids[row] = moved
            self.rows[moved] = row

    def _grow(self) -> None:
        more = len(self.vectors)
        dims = self.vectors.shape[1]
        self.vectors = np.concatenate([self.vectors, np.empty((more, dims), np.float32)])
        self.expires = np.concatenate([self.expires, np.empty(more, np.float64)])


class VectorIndex:
    """Ids by the cosine of their vectors, within a scope. Thread-safe.

    All vectors of a scope have one length; another one raises `DimensionMismatch`. A scope that was emptied is free
    again. Vectors that expired over a minute ago are let go within another minute of searching.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: dict[str, _Block] = {}
        self._scopes: dict[str, str] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self._scopes)

    @property
    def nbytes(self) -> int:
        """What vectors and ids take in this process, in bytes, near enough."""
        with self._lock:
            arrays = sum(block.vectors.nbytes + block.expires.nbytes for block in self._blocks.values())
            return arrays + _PER_ID * len(self._scopes)

    @property
    def vector_bytes(self) -> int:
        """What the vectors themselves take, without room for more."""
        with self._lock:
            return sum(4 * len(block.ids) * block.vectors.shape[1] for block in self._blocks.values())

    def check(self, scope: str, vector: Vector) -> None:
        """Raise `DimensionMismatch` for a vector that `put` would refuse."""
        with self._lock:
            self._check(scope, vector)

    def put(self, id: str, scope: str, vector: Vector, expires: float | None) -> None:
        """Add or replace; ``expires`` is in Unix seconds."""
        with self._lock:
            self._check(scope, vector)
            self._forget(id)
            block = self._blocks.get(scope)
            if block is None:
                block = self._blocks[scope] = _Block.of(len(vector))
            block.put(id, vector, math.inf if expires is None else expires)
            self._scopes[id] = scope

    def touch(self, id: str, expires: float | None) -> None:
        """Move the end of a vector's life, if it is here."""
        with self._lock:
            scope = self._scopes.get(id)
            if scope is not None:
                block = self._blocks[scope]
                block.expires[block.rows[id]] = math.inf if expires is None else expires

    def remove(self, id: str) -> None:
        with self._lock:
            self._forget(id)

    def clear(self) -> None:
        with self._lock:
            self._blocks.clear()
            self._scopes.clear()

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> list[tuple[str, float]]:
        """Return up to ``limit`` fresh ids with their cosine, best first."""
        with self._lock:
            self._sweep(now)
            self._check(scope, vector)
            block = self._blocks.get(scope)
            if block is None:
                return []
            size = len(block.ids)
            scores = block.vectors[:size] @ vector
            scores[block.expires[:size] <= now] = -np.inf
            rows = _best(scores, limit)
            return [(block.ids[row], float(np.clip(scores[row], -1.0, 1.0))) for row in rows]

    def _check(self, scope: str, vector: Vector) -> None:
        block = self._blocks.get(scope)
        if block is not None and block.vectors.shape[1] != len(vector):
            raise DimensionMismatch(block.vectors.shape[1], len(vector))

    def _sweep(self, now: float) -> None:
        """Scopes that nobody asks for again would keep their expired vectors for ever.

        Others may be a little behind, and still move the end of a life that is over by our ``now``.
        """
        if now < self._swept + _SWEEP_EVERY:
            return
        self._swept = now
        for block in list(self._blocks.values()):
            for row in np.flatnonzero(block.expires[: len(block.ids)] <= now - _SWEEP_EVERY)[::-1]:
                self._forget(block.ids[row])

    def _forget(self, id: str) -> None:
        scope = self._scopes.pop(id, None)
        if scope is None:
            return
        block = self._blocks[scope]
        block.remove(id)
        if not block.ids:
            del self._blocks[scope]


def _best(scores: NDArray[np.float32], limit: int) -> list[int]:
    """Rows of the highest finite scores, best first."""
    rows = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return [int(row) for row in rows if np.isfinite(scores[row])]
