"""Whatever a LangChain user calls an embedder, as the core's `Embedder`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from langchain_core.embeddings import Embeddings

from dispatch_core import ConfigError, Embedder, EmbeddingError, Fit, MemoEmbedder, default_embedder
from dispatch_core.types import Matrix

_BYTES_PER_TOKEN = 4


class LangChainEmbedder:
    """Any LangChain `Embeddings`. Its vectors are scaled to unit length; its dimensions are learned by one call.

    ``max_tokens`` is the encoder's window, which LangChain does not know: texts that are longer by a byte-based
    estimate are matched exactly.
    """

    def __init__(self, embeddings: Embeddings, *, model: str | None = None, max_tokens: int = 512) -> None:
        self._embeddings = embeddings
        name = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None) or ""
        self.model = model or f"langchain:{type(embeddings).__name__}:{name}"
        self.max_tokens = max_tokens

    @cached_property
    def dims(self) -> int:
        return int(self.embed(["dimensions"]).shape[1])

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows."""
        try:
            return _unit(self._embeddings.embed_documents(list(texts)))
        except Exception as error:
            raise EmbeddingError(f"{self.model} could not embed {len(texts)} texts") from error

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        try:
            return _unit(await self._embeddings.aembed_documents(list(texts)))
        except Exception as error:
            raise EmbeddingError(f"{self.model} could not embed {len(texts)} texts") from error

    def fit(self, text: str) -> Fit:
        return Fit(tokens=len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 2)

    async def afit(self, text: str) -> Fit:
        return self.fit(text)


def as_embedder(given: Embedder | Embeddings | str | None) -> Embedder:
    """A core embedder as it is, `Embeddings` adapted, a name by `default_embedder`, None its default."""
    if isinstance(given, Embeddings):
        return MemoEmbedder(LangChainEmbedder(given))
    if given is None or isinstance(given, str):
        return MemoEmbedder(default_embedder(given))
    if not hasattr(given, "aembed"):
        raise ConfigError(
            f"embedder is an Embedder, LangChain Embeddings or the name of a model, got {type(given).__name__}"
        )
    return given


def _unit(rows: Sequence[Sequence[float]]) -> Matrix:
    matrix = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return (matrix / np.where(norms == 0, 1, norms)).astype(np.float32)
