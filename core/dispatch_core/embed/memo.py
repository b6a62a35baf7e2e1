"""Remember recent embeddings: the same text is encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError
from dispatch_core.ports import Embedder
from dispatch_core.types import Fit, Matrix, Vector

T = TypeVar("T")


class _Recent(Generic[T]):
    """The values of the last ``size`` texts that were used. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, T] = OrderedDict()
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        self._lock = threading.Lock()

    def recall(self, texts: Sequence[str]) -> dict[str, T]:
        with self._lock:
            found = {text: self._values[text] for text in texts if text in self._values}
            for text in found:
                self._values.move_to_end(text)
            return found

    def remember(self, values: Mapping[str, T]) -> None:
        with self._lock:
            self._values.update(values)
            while len(self._values) > self._size:
                self._values.popitem(last=False)


class MemoEmbedder:
    """An LRU of ``size`` vectors, and of as many fits, in front of another embedder. Thread-safe; a failed embedding
    is not remembered. `RedisMemoEmbedder` remembers for many processes.
    """

    def __init__(self, wrapped: Embedder, *, size: int = 4096) -> None:
        if size < 1:
            raise ConfigError(f"size must be at least 1, got {size}")
        self.wrapped = wrapped
        self._vectors: _Recent[Vector] = _Recent(size)
        self._fits: _Recent[Fit] = _Recent(size)

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
        return run(self._fit(text))

    async def afit(self, text: str) -> Fit:
        return await arun(self._fit(text))

    def _embed(self, texts: Sequence[str]) -> Flow[Matrix]:
        known = self._vectors.recall(texts)
        unseen = [text for text in dict.fromkeys(texts) if text not in known]
        if unseen:
            rows = yield from step(self.wrapped.embed, self.wrapped.aembed, unseen)
            # A view would keep the whole batch alive.
            fresh = {text: row.copy() for text, row in zip(unseen, rows, strict=True)}
            known.update(fresh)
            self._vectors.remember(fresh)
        if not texts:
            return np.empty((0, self.dims), dtype=np.float32)
        return np.stack([known[text] for text in texts])

    def _fit(self, text: str) -> Flow[Fit]:
        known = self._fits.recall([text])
        if text not in known:
            known[text] = yield from step(self.wrapped.fit, self.wrapped.afit, text)
            self._fits.remember(known)
        return known[text]
