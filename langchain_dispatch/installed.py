"""`install()`: ``with_config(rate_limiter=...)`` limits plain LangChain models, too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.configurable import DynamicRunnable

from dispatch_core import TokenLimiter
from langchain_dispatch.runnable import with_rate_limiter

_CLASSES: tuple[Any, ...] = (Runnable, RunnableBinding, RunnableEach, DynamicRunnable)
"""The classes of LangChain that have a ``with_config`` of their own."""

_changing = threading.Lock()
_active = threading.Event()
_before: dict[Any, Callable[..., Any]] = {}


def install() -> None:
    """From now on ``ChatOpenAI(...).with_config(rate_limiter=limiter)`` limits the model; also after ``bind_tools``
    and on whole chains, as `with_rate_limiter` does, with its errors.

    LangChain's own ``with_config`` is replaced until `uninstall`; what was configured before stays as it was. Does
    nothing if it is installed. An agent takes its limiter from its model or from `DispatchMiddleware`.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_dispatch import TokenRateLimiter
    >>> limiter = TokenRateLimiter(rpm=60)
    >>> install()
    >>> model = FakeListChatModel(responses=["hello"]).with_config(rate_limiter=limiter)
    >>> uninstall()
    >>> model.invoke("How do I greet a cat?").content, limiter.stats().admitted
    ('hello', 1)
    """
    with _changing:
        _active.set()
        for kind in _CLASSES:
            if kind not in _before:
                _before[kind] = vars(kind)["with_config"]
                kind.with_config = _limiting(_before[kind])


def uninstall() -> None:
    """LangChain's own ``with_config`` again; models that were limited stay so. Does nothing if it is not installed.

    >>> uninstall()
    """
    with _changing:
        _active.clear()
        for kind in _CLASSES:
            # Where somebody replaced ours meanwhile, ours stays below and passes everything on.
            if kind in _before and getattr(vars(kind)["with_config"], "replaced", None) is _before[kind]:
                kind.with_config = _before.pop(kind)


def _limiting(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def with_config(self: Any, config: Any = None, **kwargs: Any) -> Any:
        given = kwargs.get("rate_limiter") or (config or {}).get("rate_limiter")
        if not _active.is_set() or not isinstance(given, BaseRateLimiter | TokenLimiter):
            return plain(self, config, **kwargs)
        limited = with_rate_limiter(self, given)
        config, kwargs = _without(config or {}), _without(kwargs)
        if isinstance(limited, BaseChatModel) and not config and not kwargs:
            # Still a model, which can bind tools.
            return limited
        return plain(limited, config, **kwargs)

    with_config.replaced = plain  # type: ignore[attr-defined]
    return with_config


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "rate_limiter"}
