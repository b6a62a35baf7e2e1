"""A framework's embedder as the core's: what adapters to LangChain and LlamaIndex have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.embed._unit import unit_rows
from dispatch_core.errors import EmbeddingError
from dispatch_core.types import Fit, Matrix

_BYTES_PER_TOKEN = 4
_PROBE = "dimensions"


class AdaptedEmbedder(ABC):
    """Scales vectors to unit length, checks them, and learns the dimensions from the first."""

    def __init__(self, model: str, max_tokens: int) -> None:
        self.model = model
        self.max_tokens = max_tokens
        self._dims: int | None = None

    @property
    def dims(self) -> int:
        """Learned from the first vector; asked before, at the cost of a call."""
        return self._dims or int(self.embed([_PROBE]).shape[1])

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows."""
        return run(self._embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return await arun(self._embed(texts))

    def fit(self, text: str) -> Fit:
        """An estimate by bytes: the framework does not know the encoder's tokenizer."""
        return Fit(tokens=len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 2)

    async def afit(self, text: str) -> Fit:
        return self.fit(text)

    @abstractmethod
    def _ask(self, texts: list[str]) -> Any:
        """The framework's vectors."""

    @abstractmethod
    async def _aask(self, texts: list[str]) -> Any: ...

    def _embed(self, texts: Sequence[str]) -> Flow[Matrix]:
        if not texts and self._dims:
            return np.empty((0, self._dims), dtype=np.float32)
        asked = list(texts) or [_PROBE]
        try:
            numbers = yield from step(self._ask, self._aask, asked)
        except Exception as error:
            raise EmbeddingError(
                f"{self.model} could not embed {len(asked)} texts: {type(error).__name__}"
            ) from error
        rows = unit_rows(numbers, len(asked), self.model)
        if self._dims not in (None, rows.shape[1]):
            raise EmbeddingError(f"{self.model} returned {rows.shape[1]} dimensions instead of {self._dims}")
        self._dims = rows.shape[1]
        return rows[: len(texts)]
