"""From the vectors of tokens to one vector of the text, as sentence-transformers does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dispatch_core.errors import EmbeddingError
from dispatch_core.types import Matrix

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def pooled(states: Floats, mask: Ints, kinds: Sequence[str]) -> Matrix:
    """Join the pools of each kind: shape (texts, tokens, width) becomes (texts, width · kinds).

    ``mask`` is 1 for tokens and 0 for padding, which is on the right.
    """
    return np.concatenate([_POOLS[kind](states, mask) for kind in kinds], axis=1)


def unit(rows: Matrix) -> Matrix:
    """Scale each row to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)


def kinds_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds that a ``1_Pooling/config.json`` asks for, old style or new. Raises `EmbeddingError` if unknown."""
    asked = config.get("pooling_mode")
    if asked is None:
        asked = [kind for key, kind in _OLD_KEYS.items() if config.get(key)] or ["mean"]
    kinds = (asked,) if isinstance(asked, str) else tuple(asked)
    unknown = [kind for kind in kinds if kind not in _POOLS]
    if unknown:
        raise EmbeddingError(f"the pooling {', '.join(unknown)} is not known; known are {', '.join(_POOLS)}")
    return kinds


def _cls(states: Floats, mask: Ints) -> Floats:
    return states[:, 0]


def _max(states: Floats, mask: Ints) -> Floats:
    return np.asarray(np.where(mask[:, :, None] > 0, states, np.float32(-np.inf)).max(axis=1), dtype=np.float32)


def _sums(states: Floats, weights: Ints) -> tuple[Floats, Floats]:
    """The weighted sum of the states, and the weights' sum."""
    floats = weights.astype(np.float32)
    return (floats[:, None, :] @ states)[:, 0], np.maximum(floats.sum(axis=1, keepdims=True), np.float32(1e-9))


def _mean(states: Floats, mask: Ints) -> Floats:
    total, weight = _sums(states, mask)
    return np.asarray(total / weight, dtype=np.float32)


def _mean_sqrt(states: Floats, mask: Ints) -> Floats:
    total, weight = _sums(states, mask)
    return np.asarray(total / np.sqrt(weight), dtype=np.float32)


def _weighted_mean(states: Floats, mask: Ints) -> Floats:
    return _mean(states, mask * np.arange(1, mask.shape[1] + 1))


def _last(states: Floats, mask: Ints) -> Floats:
    ends = np.maximum(mask.sum(axis=1) - 1, 0)
    return np.asarray(states[np.arange(len(states)), ends], dtype=np.float32)


_POOLS: dict[str, Callable[[Floats, Ints], Floats]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""In the order in which sentence-transformers joins them."""

_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
