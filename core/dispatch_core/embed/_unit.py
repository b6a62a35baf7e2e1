"""Rows of numbers from elsewhere, made the unit vectors that the `Embedder` port promises."""

from __future__ import annotations

from typing import Any

import numpy as np

from dispatch_core.errors import EmbeddingError
from dispatch_core.types import Matrix


def unit_rows(rows: Any, count: int, model: str) -> Matrix:
    """Shape ``(count, dims)``, float32, unit length. Raises `EmbeddingError` for anything that cannot become that."""
    try:
        numbers = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"{model} returned something other than rows of numbers of one length") from error
    if numbers.ndim != 2 or len(numbers) != count or numbers.shape[1] == 0:
        raise EmbeddingError(f"{model} returned numbers of shape {numbers.shape} for {count} texts")
    norms = np.linalg.norm(numbers, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        raise EmbeddingError(f"{model} returned a vector without a direction: all zero, or not finite")
    unit: Matrix = (numbers / norms).astype(np.float32)
    return unit
