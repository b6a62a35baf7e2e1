"""AI Dispatcher for LlamaIndex: any LLM behind a semantic cache and a token-aware rate limiter."""

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    from dispatch_core.errors import MissingExtra

    raise MissingExtra("llamaindex_dispatch", "llamaindex") from error

from llamaindex_dispatch.embedder import LlamaIndexEmbedder
from llamaindex_dispatch.events import DispatchCacheHitEvent
from llamaindex_dispatch.llm import DispatchFunctionCallingLLM, DispatchLLM
from llamaindex_dispatch.rate_limiter import TokenRateLimiter

__all__ = [
    "DispatchCacheHitEvent",
    "DispatchFunctionCallingLLM",
    "DispatchLLM",
    "LlamaIndexEmbedder",
    "TokenRateLimiter",
]
