"""An embedder without a model, for tests and documentation only: it hears the letters, not the meaning."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from dispatch_core.types import Fit, Matrix

_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """Feature hashing of words and character trigrams, deterministic everywhere.

    Two texts are close when they share words. For tests and documentation only: it is no semantic encoder, and a
    cache that decides with it answers wrongly.
    """

    max_tokens = 512

    def __init__(self, dims: int = 256) -> None:
        self.dims = dims
        self.model = f"hashing-{dims}"

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows."""
        rows = np.zeros((len(texts), self.dims), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for feature in _features(text):
                hashed = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                number = int.from_bytes(hashed, "little")
                row[number % self.dims] += 1.0 if number >> 63 else -1.0
            if not row.any():
                row[0] = 1.0
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return self.embed(texts)

    def fit(self, text: str) -> Fit:
        return Fit(tokens=len(_WORD.findall(text)))

    async def afit(self, text: str) -> Fit:
        return self.fit(text)


def _features(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())
    trigrams = [word[start : start + 3] for word in words for start in range(len(word) - 2)]
    return words * 2 + trigrams
