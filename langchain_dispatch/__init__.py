"""AI Dispatcher for LangChain: a semantic LLM cache, a token-aware rate limiter, and both for a single model."""

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    from dispatch_core.errors import MissingExtra

    raise MissingExtra("langchain_dispatch", "langchain") from error

from langchain_dispatch.cache import SemanticCache, SemanticRedisCache
from langchain_dispatch.chat import dispatch
from langchain_dispatch.embedder import LangChainEmbedder
from langchain_dispatch.rate_limiter import TokenRateLimiter

__all__ = ["LangChainEmbedder", "SemanticCache", "SemanticRedisCache", "TokenRateLimiter", "dispatch"]
