"""Any embedding model of LlamaIndex, as the core's `Embedder`."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding

from dispatch_core import ConfigError
from dispatch_core.embed._adapted import AdaptedEmbedder
from dispatch_core.embed._space import space_of

_SMALL_WINDOW = 512


class LlamaIndexEmbedder(AdaptedEmbedder):
    """Any `BaseEmbedding`: ``SemanticCache(LlamaIndexEmbedder(Settings.embed_model), store)``.

    All that a cache compares are questions: every text is embedded as a query, also by models that embed queries and
    documents differently. The model's own callbacks, events, cache and rate limiter apply. Its vectors are scaled to
    unit length; its dimensions are learned by one call. ``model`` names the vector space; without it, it is made of
    the class and all settings that may change a vector. ``max_tokens`` is the encoder's window: texts that are longer
    by a byte-based estimate are matched exactly. Put `MemoEmbedder` in front of a model that costs time or money.

    >>> from llama_index.core.embeddings import MockEmbedding
    >>> LlamaIndexEmbedder(MockEmbedding(embed_dim=4)).embed(["a question"]).tolist()
    [[0.5, 0.5, 0.5, 0.5]]
    """

    def __init__(
        self, embed_model: BaseEmbedding, *, model: str | None = None, max_tokens: int = _SMALL_WINDOW
    ) -> None:
        if not isinstance(embed_model, BaseEmbedding):
            raise ConfigError(f"embed_model is a BaseEmbedding of llama_index, got {type(embed_model).__name__}")
        self._embed_model = embed_model
        super().__init__(model or _space(embed_model), max_tokens)

    def _ask(self, texts: list[str]) -> Any:
        return [self._embed_model.get_query_embedding(text) for text in texts]

    async def _aask(self, texts: list[str]) -> Any:
        return [await self._embed_model.aget_query_embedding(text) for text in texts]


def _space(embed_model: BaseEmbedding) -> str:
    fields = type(embed_model).model_fields
    settings = {name: getattr(embed_model, name, None) for name in fields if name != "model_name"}
    size = settings.pop("dimensions", None)
    kind = f"llamaindex:{embed_model.class_name()}"
    return space_of(kind, embed_model.model_name, size if isinstance(size, int) else None, settings)
