"""The nearest neighbours of every text, block by block: memory grows with the texts, never with their square."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate.progress import Progress, silent
from dispatch_core.types import Matrix, Vector

REMEMBERED = 128
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Near:
    """Neighbours of each text, best first, one text after another in flat arrays.

    ``cutoffs`` bound what was left out: no other text that may be stored when the text is asked is nearer.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    scores: NDArray[np.float32]
    cutoffs: Sequence[float]

    def of(self, text: int) -> tuple[list[int], list[float], float]:
        """Neighbours, their cosines, and the bound on all others."""
        part = slice(self.starts[text], self.starts[text + 1])
        return self.rows[part].tolist(), self.scores[part].tolist(), self.cutoffs[text]


def near(vectors: Matrix, again: NDArray[np.bool_], progress: Progress = silent) -> Near:
    """Of each text the nearest before it, and of those asked ``again`` the nearest after it too."""
    rows = [np.empty(0, np.int32)]
    scores = [np.empty(0, np.float32)]
    cutoffs: list[float] = []
    with progress("finding neighbours", len(vectors)) as advance:
        for start in range(0, len(vectors), BLOCK):
            stop = min(start + BLOCK, len(vectors))
            seen = len(vectors) if again[start:stop].any() else stop
            block = vectors[start:stop] @ vectors[:seen].T
            np.clip(block, -1.0, 1.0, out=block)
            for row, its in enumerate(block, start):
                found, cutoff = _neighbours(its, row, bool(again[row]))
                rows.append(found.astype(np.int32))
                scores.append(its[found])
                cutoffs.append(cutoff)
            advance(stop - start)
    starts = np.cumsum([len(its) for its in rows], dtype=np.int64)
    return Near(starts, np.concatenate(rows), np.concatenate(scores), cutoffs)


def best(scores: Vector, limit: int) -> NDArray[np.intp]:
    """Indices of the highest scores, best first."""
    rows = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    return rows[np.argsort(-scores[rows], kind="stable")]


def _neighbours(scores: Vector, row: int, again: bool) -> tuple[NDArray[np.intp], float]:
    before = best(scores[:row], REMEMBERED)
    cutoff = float(scores[before[-1]]) if len(before) < row else -np.inf
    if not again:
        return before, cutoff
    after = best(scores[row + 1 :], REMEMBERED) + row + 1
    if len(after) < len(scores) - row - 1:
        cutoff = max(cutoff, float(scores[after[-1]]))
    both = np.concatenate([before, after])
    return both[np.argsort(-scores[both], kind="stable")], cutoff
