"""Whatever a LangChain user calls an embedder, as the core's `Embedder`."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel

from dispatch_core import ConfigError, Embedder, MemoEmbedder, default_embedder
from dispatch_core.embed._adapted import AdaptedEmbedder
from dispatch_core.embed._space import space_of

_SMALL_WINDOW = 512
_NAMES = ("model", "model_name", "model_id", "repo_id")
_DIMENSIONS = ("dimensions", "output_dimensionality", "truncate_dim")


class LangChainEmbedder(AdaptedEmbedder):
    """Any LangChain `Embeddings`. Its vectors are scaled to unit length; its dimensions are learned by one call.

    All that a cache compares are questions: with models that embed queries and documents differently, every text is
    embedded as a ``side="query"``, one call for each. ``"document"`` embeds many texts in a call, and uses the store
    of a `CacheBackedEmbeddings`; right for symmetric models. ``model`` names the vector space; without it, it is made
    of the class and all settings that may change a vector. ``max_tokens`` is the window, by default what the
    model says, or 512: texts that are longer by a byte-based estimate are matched exactly.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_dispatch import SemanticCache
    >>> embedder = LangChainEmbedder(DeterministicFakeEmbedding(size=8), model="fake", max_tokens=256)
    >>> embedder.embed(["How do I greet a cat?"]).shape
    (1, 8)
    >>> model = FakeListChatModel(responses=["hello", "never asked"], cache=SemanticCache(embedder=embedder))
    >>> {model.invoke("How do I greet a cat?").content for _ in range(2)}
    {'hello'}
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        side: Literal["query", "document"] = "query",
    ) -> None:
        if side not in ("query", "document"):
            raise ConfigError(f"side is 'query' or 'document', got {side!r}")
        self._embeddings = embeddings
        self._side = side
        window = max_tokens or getattr(embeddings, "embedding_ctx_length", None)
        named = model or _space(embeddings) + ("" if side == "query" else f":{side}")
        super().__init__(named, window if isinstance(window, int) else _SMALL_WINDOW)

    def _ask(self, texts: list[str]) -> Any:
        if self._side == "document":
            return self._embeddings.embed_documents(texts)
        return [self._embeddings.embed_query(text) for text in texts]

    async def _aask(self, texts: list[str]) -> Any:
        if self._side == "document":
            return await self._embeddings.aembed_documents(texts)
        return [await self._embeddings.aembed_query(text) for text in texts]


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


def _space(embeddings: Embeddings) -> str:
    inner = getattr(embeddings, "underlying_embeddings", None)
    if isinstance(inner, Embeddings):
        # A cache in front changes no vector.
        return _space(inner)
    fields = type(embeddings).model_fields if isinstance(embeddings, BaseModel) else vars(embeddings)
    values: dict[str, Any] = {name: getattr(embeddings, name, None) for name in fields}
    settings = {name: _space(value) if isinstance(value, Embeddings) else value for name, value in values.items()}
    model = next((settings.pop(name) for name in _NAMES if isinstance(settings.get(name), str)), "")
    size: Any = next((settings.pop(name) for name in _DIMENSIONS if isinstance(settings.get(name), int)), None)
    return space_of(f"langchain:{type(embeddings).__name__}", str(model), size, settings)
