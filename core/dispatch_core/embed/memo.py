"""Remember recent embeddings: the same text is encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError
from dispatch_core.ports import Embedder
from dispatch_core.types import Fit, Matrix, Vector


class MemoEmbedder:
    """An LRU of ``size`` vectors in front of another embedder. Thread-safe; a failed embedding is not remembered."""

    def __init__(self, wrapped: Embedder, *, size: int = 4096) -> None:
        if size < 1:
            raise ConfigError(f"size must be at least 1, got {size}")
        self.wrapped = wrapped
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def dims(self) -> int:
        return self.wrapped.dims

    @property
    def max_tokens(self) -> int:
        return self.wrapped.max_tokens

    def embed(self, texts: Sequence[str]) -> Matrix:
        return run(self._embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return await arun(self._embed(texts))

    def fit(self, text: str) -> Fit:
        return self.wrapped.fit(text)

    async def afit(self, text: str) -> Fit:
        return await self.wrapped.afit(text)

    def _embed(self, texts: Sequence[str]) -> Flow[Matrix]:
        known = self._recall(texts)
        unseen = [text for text in dict.fromkeys(texts) if text not in known]
        if unseen:
            fresh = yield from step(self.wrapped.embed, self.wrapped.aembed, unseen)
            known.update(zip(unseen, fresh, strict=True))
            self._remember({text: known[text] for text in unseen})
        if not texts:
            return np.empty((0, self.dims), dtype=np.float32)
        return np.stack([known[text] for text in texts])

    def _recall(self, texts: Sequence[str]) -> dict[str, Vector]:
        with self._lock:
            found = {text: self._vectors[text] for text in texts if text in self._vectors}
            for text in found:
                self._vectors.move_to_end(text)
            return found

    def _remember(self, vectors: dict[str, Vector]) -> None:
        with self._lock:
            self._vectors.update(vectors)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
