"""Sign-binary codes: a fast guess at which rows are nearest, to be scored exactly afterwards.

One bit per dimension says on which side of the mean a vector lies. The share of bits in which two vectors differ
grows with their angle (Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002), and
counting them reads a thirty-second of what the vectors weigh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from dispatch_core.types import Matrix, Vector

_Number = TypeVar("_Number", np.float32, np.float64, np.uint64)
_Words = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.intp]

# The first words of all rows are compared; of those that are near by them, all words. Two words per row are what fits
# the time, and a count of up to 128 differences fits a byte with room for a mark.
_HEAD = 2
_MOST = 64 * _HEAD
_GONE = 255
# One step's intermediate results stay in the cache of a core, and its four calls cost little beside its work.
STEP = 1 << 14
_SAMPLE = 1024
# By the head alone the nearest may come late: this many times as many rows are compared in full as are kept, and of a
# large scope one in so many.
_WIDE, _PART = 8, 256


@dataclass(slots=True, eq=False)
class Scan:
    """A search over the codes as they were when it began. Needs no lock: what is written meanwhile is in ``written``.

    ``keep`` is how many candidates to find; before ``soonest``, in Unix seconds, none of the rows expires.
    """

    code: _Words
    head: _Words
    tail: _Words
    expires: NDArray[np.float64]
    soonest: float
    size: int
    now: float
    keep: int
    written: list[int] = field(default_factory=list)

    def nearest(self) -> Rows:
        """Rows of ``keep`` fresh vectors, if there are so many, among them almost surely the nearest; in no order."""
        counts = self._counts()
        wide = max(_WIDE * self.keep, self.size // _PART)
        rows = self.fresh(_lowest(counts, wide))
        if len(rows) < min(wide // 2, self.size):
            # Those that expired stood in front.
            counts[self.expires[: self.size] <= self.now] = _GONE
            rows = self.fresh(_lowest(counts, wide))
        if len(rows) <= self.keep:
            return rows
        differ = self.tail.take(rows, axis=0)
        np.bitwise_xor(differ, self.code[_HEAD:], out=differ)
        # By columns: numpy adds up long rows of numbers faster than many short ones.
        total: NDArray[np.uint16] = np.add.reduce(popcount(differ).T.copy(), axis=0, dtype=np.uint16)
        total += counts.take(rows)
        # Stable is radix sort here: faster than partitioning, whose branches nothing predicts.
        return rows.take(np.argsort(total, kind="stable")[: self.keep])

    def fresh(self, rows: Rows) -> Rows:
        """Those of the rows that have not expired."""
        return rows if self.now < self.soonest else rows[self.expires.take(rows) > self.now]

    def _counts(self) -> NDArray[np.uint8]:
        """In how many bits of the head each row differs."""
        counts = np.empty(self.size, np.uint8)
        differ, more = np.empty(min(STEP, self.size), np.uint64), np.empty(min(STEP, self.size), np.uint8)
        words = [(column, self.code[word]) for word, column in enumerate(self.head)]
        for start in range(0, self.size, STEP):
            part = counts[start : start + STEP]
            if len(part) < len(differ):
                differ, more = differ[: len(part)], more[: len(part)]
            into = part
            for column, word in words:
                np.bitwise_xor(column[start : start + STEP][: len(part)], word, out=differ)
                popcount(differ, out=into)
                if into is more:
                    np.add(part, more, out=part)
                into = more
        return counts


class Codes:
    """The codes of the rows of one scope, in the order of its rows."""

    def __init__(self, vectors: Sequence[Matrix], capacity: int) -> None:
        """``vectors`` are the rows so far; their mean is what later ones are compared with, too."""
        size = sum(map(len, vectors))
        total = np.sum([part.sum(axis=0, dtype=np.float64) for part in vectors], axis=0)
        self._mean: Vector = (total / size).astype(np.float32)
        words = -(-len(self._mean) // 64)
        self.head = np.zeros((min(_HEAD, words), capacity), np.uint64)
        self.tail = np.zeros((capacity, max(0, words - _HEAD)), np.uint64)
        start = 0
        for part in vectors:
            codes = self.of(part)
            self.head[:, start : start + len(part)] = codes[:, :_HEAD].T
            self.tail[start : start + len(part)] = codes[:, _HEAD:]
            start += len(part)

    @property
    def nbytes(self) -> int:
        return self.head.nbytes + self.tail.nbytes

    def of(self, vectors: NDArray[np.float32]) -> _Words:
        """The codes of one vector or of several, their words along the last axis."""
        bits = np.packbits(vectors > self._mean, axis=-1)
        padding = -bits.shape[-1] % 8
        if padding:
            bits = np.concatenate([bits, np.zeros((*bits.shape[:-1], padding), np.uint8)], axis=-1)
        return bits.view(np.uint64)

    def put(self, row: int, vector: Vector) -> None:
        code = self.of(vector)
        self.head[:, row] = code[:_HEAD]
        self.tail[row] = code[_HEAD:]

    def move(self, row: int, to: int) -> None:
        self.head[:, to] = self.head[:, row]
        self.tail[to] = self.tail[row]

    def resize(self, capacity: int) -> None:
        """Into new arrays: a scan goes on with those it began with."""
        self.head = resized(self.head, capacity, axis=1)
        self.tail = resized(self.tail, capacity)


def resized(array: NDArray[_Number], capacity: int, axis: int = 0) -> NDArray[_Number]:
    """A copy with another capacity; what it has more is not set."""
    shape = list(array.shape)
    kept = min(shape[axis], capacity)
    shape[axis] = capacity
    new = np.empty(shape, array.dtype)
    part = (slice(None),) * axis + (slice(kept),)
    new[part] = array[part]
    return new


def _lowest(counts: NDArray[np.uint8], keep: int) -> Rows:
    """Rows with the lowest counts, at least ``keep`` unless there are fewer: whoever ties with one of them is there.

    The counts of a sample say about where to cut: partitioning them all takes longer than counting did.
    """
    cut = _MOST
    if keep < len(counts):
        sample = counts[:: 1 + len(counts) // _SAMPLE]
        rank = keep * len(sample) // len(counts)
        cut = min(_MOST, int(np.bincount(sample).cumsum().searchsorted(rank, side="right")))
    while True:
        near = counts <= cut
        if cut == _MOST or np.count_nonzero(near) >= keep:
            return near.nonzero()[0]
        cut += 1


def popcount_before_numpy_2(words: _Words, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """How many bits of each word are set: sums of ever larger groups of bits."""
    pairs = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    eights = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.uint8] = ((eights * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)
    if out is None:
        return counts
    out[...] = counts
    return out


popcount = getattr(np, "bitwise_count", popcount_before_numpy_2)
