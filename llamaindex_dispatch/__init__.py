"""AI Dispatcher for LlamaIndex: any LLM behind a semantic cache and a token-aware rate limiter."""

from typing import TYPE_CHECKING

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from dispatch_core.errors import MissingExtra

    raise MissingExtra("llamaindex_dispatch", "llamaindex") from error

if TYPE_CHECKING:
    from llamaindex_dispatch.embedder import LlamaIndexEmbedder
    from llamaindex_dispatch.events import (
        DispatchCacheHitEvent,
        DispatchCacheMissEvent,
        DispatchRateLimitWaitEvent,
    )
    from llamaindex_dispatch.llm import DispatchFunctionCallingLLM, DispatchLLM
    from llamaindex_dispatch.rate_limiter import TokenRateLimiter
    from llamaindex_dispatch.retries import RetryPolicy
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "DispatchCacheHitEvent": "events",
            "DispatchCacheMissEvent": "events",
            "DispatchFunctionCallingLLM": "llm",
            "DispatchLLM": "llm",
            "DispatchRateLimitWaitEvent": "events",
            "LlamaIndexEmbedder": "embedder",
            "RetryPolicy": "retries",
            "TokenRateLimiter": "rate_limiter",
        },
    )

__all__ = [
    "DispatchCacheHitEvent",
    "DispatchCacheMissEvent",
    "DispatchFunctionCallingLLM",
    "DispatchLLM",
    "DispatchRateLimitWaitEvent",
    "LlamaIndexEmbedder",
    "RetryPolicy",
    "TokenRateLimiter",
]
