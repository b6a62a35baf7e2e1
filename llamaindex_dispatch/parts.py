"""The cache and the limiter that a `DispatchLLM` is given, checked at once and not at its first call."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.rate_limiter import BaseRateLimiter

from dispatch_core import ConfigError, Dispatcher
from llamaindex_dispatch.rate_limiter import TokenRateLimiter

_CACHE = ("lookup_flow", "store_flow", "unseen")
_LIMITER = ("estimate", "acquire", "aacquire", "observe")


def dispatcher_of(cache: Any, rate_limiter: Any) -> Dispatcher:
    """The dispatcher made of both, or the one given as a cache. Raises `ConfigError`."""
    limiter = _limiter_of(rate_limiter)
    if isinstance(cache, Dispatcher):
        if limiter is not None and limiter is not cache.limiter:
            raise ConfigError("a Dispatcher brings its own limiter: give the rate_limiter to the Dispatcher")
        return cache
    if cache is not None and not _has(cache, _CACHE):
        raise ConfigError(f"cache= takes a SemanticCache of dispatch_core or a Dispatcher, {_instead_of(cache)}")
    embedder = getattr(cache, "embedder", None)
    if isinstance(embedder, BaseEmbedding):
        kind = type(embedder).__name__
        raise ConfigError(
            f"a cache takes a model of llama_index as LlamaIndexEmbedder: LlamaIndexEmbedder({kind}(...))"
        )
    return Dispatcher(cache, limiter)


def patience_of(rate_limiter: Any) -> float | None:
    """The longest wait in seconds that a `TokenRateLimiter` was given; None leaves it to the core limiter."""
    return rate_limiter.timeout if isinstance(rate_limiter, TokenRateLimiter) else None


def core_limiter(rate_limiter: Any) -> Any:
    """The limiter behind that of a model; None if there is none of ours."""
    return rate_limiter.limiter if isinstance(rate_limiter, TokenRateLimiter) else None


def _limiter_of(rate_limiter: Any) -> Any:
    if isinstance(rate_limiter, TokenRateLimiter):
        return rate_limiter.limiter
    if isinstance(rate_limiter, BaseRateLimiter):
        raise ConfigError("a rate limiter of llama_index belongs to the wrapped model; here a TokenLimiter is needed")
    if rate_limiter is not None and not _has(rate_limiter, _LIMITER):
        kind = _kind(rate_limiter)
        raise ConfigError(f"rate_limiter= takes a limiter of dispatch_core, as in TokenLimiter(rpm=60), not {kind}")
    return rate_limiter


def _instead_of(cache: Any) -> str:
    if isinstance(cache, str):
        return "not a text: SemanticCache(SentenceTransformerEmbedder(), store_from_url(url))"
    if _has(cache, ("get", "search", "put")):
        return f"not a store: SemanticCache(SentenceTransformerEmbedder(), {type(cache).__name__}(...))"
    return f"not {_kind(cache)}"


def _has(part: Any, names: tuple[str, ...]) -> bool:
    return not isinstance(part, type) and all(callable(getattr(part, name, None)) for name in names)


def _kind(part: Any) -> str:
    if isinstance(part, type):
        return f"the class {part.__name__} itself"
    kind = type(part)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
