"""`DispatchMiddleware`: an agent whose models have a cache, a limiter and retries, whoever made them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.rate_limiters import BaseRateLimiter

from dispatch_core import TokenLimiter
from dispatch_core.errors import MissingExtra
from dispatch_core.limit import RetryPolicy
from dispatch_core.ports import Compressor
from langchain_dispatch.chat import dispatch
from langchain_dispatch.rate_limiter import as_rate_limiter

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise MissingExtra("DispatchMiddleware", "agents") from error


class DispatchMiddleware(AgentMiddleware[Any, Any, Any]):
    """Dispatches every model call of an agent: ``create_agent(model, middleware=[DispatchMiddleware(...)])``.

    The arguments are those of `dispatch`. The model of a request is replaced by a dispatched copy, after what other
    middleware chose: place it last in the list. Nothing is reserved here, so an answer from the cache costs nothing
    and each retry reserves for itself. Calls of models inside tools are not the agent's: dispatch those models.

    >>> from langchain.agents import create_agent
    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_dispatch import TokenRateLimiter
    >>> limiter = TokenRateLimiter(rpm=60)
    >>> model = FakeListChatModel(responses=["hello"])
    >>> agent = create_agent(model, middleware=[DispatchMiddleware(rate_limiter=limiter)])
    >>> agent.invoke({"messages": [("user", "How do I greet a cat?")]})["messages"][-1].content
    'hello'
    >>> limiter.stats().admitted
    1
    """

    def __init__(
        self,
        *,
        cache: BaseCache | bool | None = None,
        rate_limiter: BaseRateLimiter | TokenLimiter | None = None,
        stream_chunk: int | None = None,
        retries: RetryPolicy | None = None,
        compressor: Compressor | None = None,
    ) -> None:
        super().__init__()
        self._given: dict[str, Any] = {
            "cache": cache,
            "rate_limiter": None if rate_limiter is None else as_rate_limiter(rate_limiter),
            "stream_chunk": stream_chunk,
            "retries": retries,
            "compressor": compressor,
        }

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(self._dispatched(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        return await handler(self._dispatched(request))

    def _dispatched(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        return request.override(model=dispatch(request.model, **self._given))
