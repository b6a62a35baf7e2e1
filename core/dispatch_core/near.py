"""What is under way, by the meaning of its text: one small block of vectors, without a lock inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dispatch_core.types import Matrix, Vector

T = TypeVar("T")


class Block(Generic[T]):
    """Things of which each has a scope and a vector, at most ``rows`` at once: what does not fit is not found.

    A row is claimed, filled, published and given back in steps of which each is one step for all threads, so that a
    finaliser may give one back in the middle of anything. Who compares may therefore read a row that is just being
    filled: what it finds there is compared again with the vector that came with the thing.
    """

    def __init__(self, *, rows: int = 256) -> None:
        self._free = list(range(rows))[::-1]
        self._kept: list[tuple[str, Vector, T] | None] = [None] * rows
        self._scopes = np.zeros(rows, np.int64)
        self._vectors: Matrix | None = None

    def __len__(self) -> int:
        return len(self._kept) - len(self._free)

    def put(self, scope: str, vector: Vector, thing: T) -> int | None:
        """The row to give back later; None if there is none left, or the others' vectors have another length."""
        vectors = self._vectors
        if vectors is None:
            vectors = self._vectors = np.zeros((len(self._kept), len(vector)), np.float32)
        if vectors.shape[1] != len(vector):
            return None
        try:
            row = self._free.pop()
        except IndexError:
            return None
        vectors[row] = vector
        self._kept[row] = (scope, vector, thing)
        self._scopes[row] = _mark(scope)
        return row

    def give_back(self, row: int) -> None:
        """To be called once for every row that was given."""
        self._scopes[row] = 0
        self._kept[row] = None
        self._free.append(row)

    def nearest(self, scope: str, vector: Vector) -> Iterator[tuple[T, float]]:
        """The things of this scope with their cosine in [−1, 1], best first."""
        rows: NDArray[np.intp] = np.flatnonzero(self._scopes == _mark(scope))
        vectors = self._vectors
        if not len(rows) or vectors is None or vectors.shape[1] != len(vector):
            return
        # All rows up to the last of these: a product is faster than a copy.
        scores = (vectors[: rows[-1] + 1] @ vector)[rows]
        for row in rows[np.argsort(-scores, kind="stable")]:
            kept = self._kept[row]
            if kept is not None and kept[0] == scope:
                yield kept[2], cosine(kept[1], vector)


def cosine(one: Vector, other: Vector) -> float:
    """Of two vectors of unit length; in [−1, 1] in spite of rounding."""
    return max(-1.0, min(1.0, float(one @ other)))


def _mark(scope: str) -> int:
    """A number for a scope; no scope has the 0 of an empty row."""
    return hash(scope) | 1
