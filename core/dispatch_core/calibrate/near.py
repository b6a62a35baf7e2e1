"""The nearest neighbours of every text, block by block: memory grows with the texts, never with their square."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate.progress import Progress, silent
from dispatch_core.types import Matrix, Vector

REMEMBERED = 128
BLOCK = 256

_Part = tuple[NDArray[np.int32], NDArray[np.float32], float]
"""Neighbours of one text, their cosines, and the bound on all others."""


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
    parts: list[_Part] = []
    with progress("finding neighbours", len(vectors)) as advance:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            before = _cosines(block, vectors[: start + BLOCK])
            repeated = np.flatnonzero(again[start : start + BLOCK])
            after = dict(zip(repeated.tolist(), _cosines(block[repeated], vectors[start:]), strict=True))
            for place, scores in enumerate(before):
                part = _nearest(scores[: start + place], 0)
                if place in after:
                    part = _both(part, _nearest(after[place][place + 1 :], start + place + 1))
                parts.append(part)
            advance(len(block))
    starts = np.cumsum([0, *(len(rows) for rows, _, _ in parts)], dtype=np.int64)
    rows = np.concatenate([np.empty(0, np.int32), *(rows for rows, _, _ in parts)])
    scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores, _ in parts)])
    return Near(starts, rows, scores, [cutoff for _, _, cutoff in parts])


def best(scores: Vector, limit: int) -> NDArray[np.intp]:
    """Indices of the highest scores, best first."""
    rows = np.argpartition(-scores, limit - 1)[:limit] if limit < len(scores) else np.arange(len(scores))
    return rows[np.argsort(-scores[rows], kind="stable")]


def _cosines(some: Matrix, others: Matrix) -> Matrix:
    cosines: Matrix = some @ others.T
    return np.clip(cosines, -1.0, 1.0, out=cosines)


def _nearest(scores: Vector, first: int) -> _Part:
    """Of the texts from ``first`` on, whose scores these are."""
    rows = best(scores, REMEMBERED)
    cutoff = float(scores[rows[-1]]) if len(rows) < len(scores) else -math.inf
    return (rows + first).astype(np.int32), scores[rows], cutoff


def _both(one: _Part, other: _Part) -> _Part:
    rows, scores = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order], max(one[2], other[2])
