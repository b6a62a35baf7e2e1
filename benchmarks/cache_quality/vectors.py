"""Embeddings of a corpus, made once: batched, and kept beside the results."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.cache_quality.questions import Corpus
from dispatch_core import Query, SentenceTransformerEmbedder
from dispatch_core.eligible import why_exact_only, why_unreadable
from dispatch_core.types import Matrix

_BATCH = 1_024


@dataclass(frozen=True, slots=True)
class Embedded:
    """``readable`` says which questions are compared by meaning at all."""

    vectors: Matrix
    readable: NDArray[np.bool_]


def embedded(corpus: Corpus, embedder: SentenceTransformerEmbedder, folder: Path) -> Embedded:
    """From the folder if it was there before."""
    state = hashlib.blake2b(digest_size=8)
    for part in (embedder.model, *corpus.texts):
        state.update(part.encode("utf-8", "surrogatepass") + b"\0")
    path = folder / f"{corpus.name}-{state.hexdigest()}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as saved:
            return Embedded(saved["vectors"], saved["readable"])
    starts = range(0, len(corpus.texts), _BATCH)
    vectors = np.concatenate([embedder.embed(corpus.texts[start : start + _BATCH]) for start in starts])
    readable = np.array([_readable(text, embedder) for text in corpus.texts])
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, vectors=vectors, readable=readable)
    return Embedded(vectors, readable)


def _readable(text: str, embedder: SentenceTransformerEmbedder) -> bool:
    return why_exact_only(Query(text)) is None and why_unreadable(embedder.fit(text), embedder.max_tokens) is None
