"""`dispatch(model)`: the same model, with a cache and a limiter of its own."""

from __future__ import annotations

from functools import cache as memoised
from typing import Any, TypeVar, cast

from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig

from dispatch_core import TokenLimiter
from dispatch_core.errors import ConfigError
from langchain_dispatch.rate_limiter import TokenRateLimiter

M = TypeVar("M", bound=BaseChatModel)


def dispatch(
    model: M,
    *,
    cache: BaseCache | bool | None = None,
    rate_limiter: BaseRateLimiter | TokenLimiter | None = None,
) -> M:
    """A copy of a chat model with the given cache and limiter, whose ``with_config`` takes a ``rate_limiter``.

    The result is an instance of the model's own class: ``bind_tools``, ``with_structured_output``, serialisation
    and tracing are the model's. What is not given stays as the model has it. Raises TypeError for anything that is no
    chat model.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> model = dispatch(FakeListChatModel(responses=["hello"]))
    >>> model.with_config(rate_limiter=TokenRateLimiter(rpm=60)).invoke("hi").content
    'hello'
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"dispatch takes a chat model (BaseChatModel), got {type(model).__name__}")
    update: dict[str, Any] = {}
    if cache is not None:
        update["cache"] = cache
    if rate_limiter is not None:
        update["rate_limiter"] = _as_rate_limiter(rate_limiter)
    copy = model.model_copy(update=update)
    # Not a new object built from fields: private clients and other state of the model's must come along.
    object.__setattr__(copy, "__class__", _dispatched(type(model)))
    return copy


class _Dispatched:
    """What `dispatch` adds to a model's class."""

    def with_config(
        self,
        config: RunnableConfig | None = None,
        *,
        rate_limiter: BaseRateLimiter | TokenLimiter | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """As in LangChain, and ``rate_limiter`` limits this model; LangChain itself would ignore it silently."""
        model = cast("BaseChatModel", self)
        if rate_limiter is not None:
            model = model.model_copy(update={"rate_limiter": _as_rate_limiter(rate_limiter)})
        if not config and not kwargs:
            return model
        # The model's own method, on the copy: ours would be found again by name.
        plain: Any = super(_Dispatched, model)
        return cast("Runnable[Any, Any]", plain.with_config(config, **kwargs))


@memoised
def _dispatched(base: type[BaseChatModel]) -> type[BaseChatModel]:
    if issubclass(base, _Dispatched):
        return base
    # Name and module stay, for they are part of LangChain's serialised form and so of every cache key.
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return cast("type[BaseChatModel]", type(base.__name__, (_Dispatched, base), names))


def _as_rate_limiter(given: BaseRateLimiter | TokenLimiter) -> BaseRateLimiter:
    if isinstance(given, TokenLimiter):
        return TokenRateLimiter(limiter=given)
    if isinstance(given, BaseRateLimiter):
        return given
    raise ConfigError(f"rate_limiter is a TokenRateLimiter or a TokenLimiter, got {type(given).__name__}")
