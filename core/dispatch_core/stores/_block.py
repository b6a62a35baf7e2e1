"""The vectors of one scope, and the search among them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dispatch_core.stores._codes import STEP, Codes, Rows, Scan, resized
from dispatch_core.types import Matrix, Vector

_FIRST_ROWS = 8
_SLAB = STEP
# Below, comparing all vectors is about as fast as guessing, and exact; between the two bounds a scope stays as it is.
CODED_FROM, _CODED_UNTIL = 4096, 2048
_CODED_DIMS = 64
# An id as this project makes them, in the list and as a key of two dictionaries.
_BYTES_PER_ID = 250
# Candidates to score, by the size of the scope: with it grows the number of those between whom the codes cannot tell.
_SCORED = ((1 << 14, 64), (1 << 18, 128), (math.inf, 256))


class Block:
    """Rows are kept dense: a removed row is filled by the last one.

    Vectors lie in slabs, so that growing copies at most one of them; the last has at most an eighth to spare. Not
    thread-safe, but for the `Scan` that `scan` hands out.
    """

    def __init__(self, scope: str, dims: int) -> None:
        self.scope = scope
        self.dims = dims
        self.ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._slabs: list[Matrix] = []
        self._expires = np.empty(_FIRST_ROWS, np.float64)
        # No row ends before; until then, nobody need look at the ends.
        self._soonest = math.inf
        self._codes: Codes | None = None
        self._scans: list[Scan] = []

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes held: exact for the arrays, an estimate for the ids."""
        arrays = sum(slab.nbytes for slab in self._slabs) + self._expires.nbytes
        return arrays + (0 if self._codes is None else self._codes.nbytes) + _BYTES_PER_ID * len(self.ids)

    def put(self, id: str, vector: Vector, expires: float) -> None:
        row = self._rows.get(id)
        if row is None:
            row = self._rows[id] = len(self.ids)
            self.ids.append(id)
            self._make_room(row)
        self._slabs[row // _SLAB][row % _SLAB] = vector
        self._expire(row, expires)
        if self._codes is not None:
            self._codes.put(row, vector)
        elif len(self.ids) >= CODED_FROM and self.dims >= _CODED_DIMS:
            self._codes = Codes(self._parts(), len(self._expires))
        self._note(row)

    def touch(self, id: str, expires: float) -> None:
        row = self._rows[id]
        self._expire(row, expires)
        self._note(row)

    def remove(self, id: str) -> None:
        row, last = self._rows.pop(id), len(self.ids) - 1
        moved = self.ids.pop()
        if row != last:
            self.ids[row] = moved
            self._rows[moved] = row
            self._slabs[row // _SLAB][row % _SLAB] = self._slabs[last // _SLAB][last % _SLAB]
            self._expires[row] = self._expires[last]
            if self._codes is not None:
                self._codes.move(last, row)
            self._note(row)
        self._give_back()

    def overdue(self, before: float, at_most: int) -> list[str]:
        """Ids of vectors whose life ended by then."""
        ends = self._ends()
        self._soonest = float(ends.min(initial=math.inf))
        return [self.ids[row] for row in np.flatnonzero(ends <= before)[:at_most]]

    def exact(self, vector: Vector, limit: int, now: float) -> list[tuple[str, float]]:
        """Compare all."""
        parts = [_cosines(part, vector) for part in self._parts()]
        scores = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if now >= self._soonest:
            scores[self._ends() <= now] = -np.inf
        rows = _best(scores, limit)
        return self._named(rows, scores[rows])

    def scan(self, vector: Vector, limit: int, now: float) -> Scan | None:
        """Begin a search for candidates; None if all are to be compared. It must come to its `end`."""
        size = len(self.ids)
        if self._codes is None or 8 * limit > size:
            return None
        keep = max(8 * limit, next(scored for bound, scored in _SCORED if size < bound))
        codes = self._codes
        scan = Scan(codes.of(vector), codes.head, codes.tail, self._expires, self._soonest, size, now, keep)
        self._scans.append(scan)
        return scan

    def end(self, scan: Scan) -> None:
        self._scans.remove(scan)

    def scored(self, scan: Scan, rows: Rows, vector: Vector, limit: int) -> list[tuple[str, float]]:
        """The best of these rows, and of those that were written since the scan began."""
        if scan.written:
            rows = np.array(sorted({*rows.tolist(), *scan.written}), np.intp)
            rows = rows[: rows.searchsorted(len(self.ids))]
            rows = rows[self._expires[rows] > scan.now]
        else:
            rows.sort()
            if len(rows) and rows[-1] >= len(self.ids):
                # The last ones were removed, which moves nothing.
                rows = rows[: rows.searchsorted(len(self.ids))]
        scores = _cosines(self._taken(rows), vector)
        best = (-scores).argsort()[:limit]
        return self._named(rows[best], scores[best])

    def _named(self, rows: Rows, scores: NDArray[np.float32]) -> list[tuple[str, float]]:
        return [
            (self.ids[row], score if -1.0 <= score <= 1.0 else math.copysign(1.0, score))
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def _ends(self) -> NDArray[np.float64]:
        return self._expires[: len(self.ids)]

    def _taken(self, rows: Rows) -> Matrix:
        """The vectors of sorted rows."""
        if len(self._slabs) == 1:
            return self._slabs[0].take(rows, axis=0)
        edges = rows.searchsorted(np.arange(len(self._slabs) + 1) * _SLAB).tolist()
        taken = np.empty((len(rows), self.dims), np.float32)
        for slab, (start, end) in zip(self._slabs, pairwise(edges), strict=True):
            if start < end:
                slab.take(rows[start:end] % _SLAB, axis=0, out=taken[start:end], mode="clip")
        return taken

    def _parts(self) -> list[Matrix]:
        """The vectors in use, slab by slab."""
        size = len(self.ids)
        return [slab[: size - number * _SLAB] for number, slab in enumerate(self._slabs) if number * _SLAB < size]

    def _expire(self, row: int, expires: float) -> None:
        self._expires[row] = expires
        self._soonest = min(self._soonest, expires)

    def _note(self, row: int) -> None:
        for scan in self._scans:
            scan.written.append(row)

    def _make_room(self, row: int) -> None:
        number, within = divmod(row, _SLAB)
        if number == len(self._slabs):
            self._slabs.append(np.empty((_FIRST_ROWS, self.dims), np.float32))
        elif within == len(self._slabs[number]):
            self._slabs[number] = resized(self._slabs[number], min(_SLAB, _larger(within)))
        if row == len(self._expires):
            self._resize(row + row // 2)

    def _give_back(self) -> None:
        size = len(self.ids)
        # Late, so that a scope that goes up and down at an edge does not allocate each time.
        del self._slabs[(size + _SLAB // 2) // _SLAB + 1 :]
        if len(self._slabs[0]) > max(1024, 4 * size):
            self._slabs[0] = resized(self._slabs[0], 2 * size)
        if size < _CODED_UNTIL:
            self._codes = None
        if len(self._expires) > max(_SLAB, 4 * size):
            self._resize(2 * size)

    def _resize(self, capacity: int) -> None:
        self._expires = resized(self._expires, capacity)
        if self._codes is not None:
            self._codes.resize(capacity)


def _larger(rows: int) -> int:
    return 2 * rows if rows < 1024 else rows + rows // 8


def _cosines(vectors: Matrix, vector: Vector) -> NDArray[np.float32]:
    """One product per row, as a stack of products so small that BLAS does not share them out among threads.

    Its threads would go on spinning for a while, and what runs beside them (the embedder's own) pays for that. In one
    thread this is as fast as one product of the matrix with the vector.
    """
    scores = np.empty(len(vectors), np.float32)
    np.matmul(vectors[:, None, :], vector[:, None], out=scores[:, None, None])
    return scores


def _best(scores: NDArray[np.float32], limit: int) -> Rows:
    """Rows of the highest finite scores, best first."""
    rows = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return rows[np.isfinite(scores[rows])]
