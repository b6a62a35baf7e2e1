"""Embeddings of a corpus, made once and kept beside the results."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from benchmarks.cache_quality.questions import Corpus
from dispatch_core import SentenceTransformerEmbedder
from dispatch_core.calibrate import vectors
from dispatch_core.calibrate.progress import progress
from dispatch_core.calibrate.vectors import Embedded


def embedded(corpus: Corpus, embedder: SentenceTransformerEmbedder, folder: Path) -> Embedded:
    """From the folder if it was there before, and the same texts are compared by meaning."""
    state = hashlib.blake2b(digest_size=8)
    readable = np.array([vectors.why_not_compared(text, embedder) is None for text in corpus.texts])
    state.update(readable.tobytes())
    for part in (embedder.model, *corpus.texts):
        state.update(part.encode("utf-8", "surrogatepass") + b"\0")
    path = folder / f"{corpus.name}-{state.hexdigest()}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as saved:
            return Embedded(saved["vectors"], saved["readable"])
    made = vectors.embedded(corpus.texts, embedder, progress())
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, vectors=made.vectors, readable=made.readable)
    return made
