"""AI Dispatcher for LangChain: a semantic LLM cache, a token-aware rate limiter, and both for a single model."""

from typing import TYPE_CHECKING

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    from dispatch_core.errors import MissingExtra

    raise MissingExtra("langchain_dispatch", "langchain") from error

if TYPE_CHECKING:
    from langchain_dispatch.cache import SemanticCache, SemanticRedisCache
    from langchain_dispatch.chat import dispatch
    from langchain_dispatch.embedder import LangChainEmbedder
    from langchain_dispatch.installed import install, uninstall
    from langchain_dispatch.rate_limiter import TokenRateLimiter
    from langchain_dispatch.retries import RetryPolicy
    from langchain_dispatch.runnable import with_rate_limiter
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "LangChainEmbedder": "embedder",
            "RetryPolicy": "retries",
            "SemanticCache": "cache",
            "SemanticRedisCache": "cache",
            "TokenRateLimiter": "rate_limiter",
            "dispatch": "chat",
            "install": "installed",
            "uninstall": "installed",
            "with_rate_limiter": "runnable",
        },
    )

__all__ = [
    "LangChainEmbedder",
    "RetryPolicy",
    "SemanticCache",
    "SemanticRedisCache",
    "TokenRateLimiter",
    "dispatch",
    "install",
    "uninstall",
    "with_rate_limiter",
]
