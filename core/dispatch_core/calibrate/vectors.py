"""Embeddings of many texts: in batches, into one array of float32, with a word on which of them can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate.progress import Progress, silent
from dispatch_core.eligible import Eligibility, why_unreadable
from dispatch_core.errors import EmbeddingError
from dispatch_core.ports import Embedder
from dispatch_core.types import Matrix, Query

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Embedded:
    """``vectors`` has a row for each text, ``readable`` says which of them are compared by meaning at all.

    Rows of the others are zero; ``reasons`` counts why.
    """

    vectors: Matrix
    readable: NDArray[np.bool_]
    reasons: Mapping[str, int] = field(default_factory=dict)


def embedded(texts: Sequence[str], embedder: Embedder, progress: Progress = silent) -> Embedded:
    """As `SemanticCache` would: texts that it matches exactly are not embedded. Raises `EmbeddingError`."""
    readable = np.zeros(len(texts), dtype=np.bool_)
    reasons: Counter[str] = Counter()
    with progress("embedding questions", len(texts)) as advance:
        # Asking for the dimensions loads the model.
        vectors = np.zeros((len(texts), embedder.dims), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            whys = [why_not_compared(text, embedder) for text in batch]
            reasons.update(why for why in whys if why)
            rows = [start + row for row, why in enumerate(whys) if why is None]
            if rows:
                vectors[rows] = _embed([texts[row] for row in rows], embedder)
                readable[rows] = True
            advance(len(batch))
    return Embedded(vectors, readable, reasons)


def embedded_answers(texts: Sequence[str], embedder: Embedder, progress: Progress = silent) -> Matrix:
    """Whatever they are: what an answer has beyond the encoder's window is not seen."""
    with progress("embedding answers", len(texts)) as advance:
        vectors = np.zeros((len(texts), embedder.dims), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            vectors[start : start + len(batch)] = _embed(batch, embedder)
            advance(len(batch))
    return vectors


def why_not_compared(text: str, embedder: Embedder) -> str | None:
    """Why a `SemanticCache` would not compare the text by meaning, or None."""
    rules, query = Eligibility(), Query(text)
    reason = rules.why_not_at_all(query) or rules.why_exact_only(query)
    return reason or why_unreadable(embedder.fit(text), embedder.max_tokens)


def _embed(texts: Sequence[str], embedder: Embedder) -> Matrix:
    vectors = embedder.embed(texts)
    if vectors.shape != (len(texts), embedder.dims) or not np.isfinite(vectors).all():
        raise EmbeddingError(f"{embedder.model} returned unusable vectors of shape {vectors.shape}")
    return vectors
