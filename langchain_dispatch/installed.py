"""`install()`: ``with_config(rate_limiter=...)`` limits plain LangChain models, too.

The models of a chain are replaced by limited ones at once, as by `with_rate_limiter`. Those that are out of reach
there, in functions and agents, look into their config when they are called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.configurable import DynamicRunnable

from dispatch_core import TokenLimiter
from langchain_dispatch.given import limited
from langchain_dispatch.runnable import limited_now

_CLASSES: tuple[Any, ...] = (Runnable, RunnableBinding, RunnableEach, DynamicRunnable)
"""The classes of LangChain that have a ``with_config`` of their own."""

_ASKING = ("invoke", "ainvoke", "stream", "astream", "stream_events", "astream_events")

_changing = threading.Lock()
_active = threading.Event()
_before: dict[tuple[Any, str], Callable[..., Any]] = {}


def install() -> None:
    """From now on ``ChatOpenAI(...).with_config(rate_limiter=limiter)`` limits the model; also after ``bind_tools``,
    on whole chains and on agents: what `with_rate_limiter` cannot reach finds the limiter when it is called. One
    that is only inherited, by a model within a function or an agent, takes the place of no limiter of its own.

    Until `uninstall`, LangChain's own ``with_config`` and the methods that ask a chat model are replaced. Does
    nothing if it is installed. ``with_config`` raises TypeError where nothing would be limited: for completion
    models, and for what holds no model and calls no function.

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
        for kind, name in _replaceable():
            if (kind, name) not in _before:
                plain = _before[kind, name] = vars(kind)[name]
                setattr(kind, name, _limiting(plain) if name == "with_config" else _asking(plain))


def uninstall() -> None:
    """LangChain's own methods again; models that ``with_config`` limited stay so, those in functions and agents do
    not. Does nothing if it is not installed.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> install()
    >>> uninstall()
    >>> FakeListChatModel(responses=["hello"]).invoke("How do I greet a cat?").content
    'hello'
    """
    with _changing:
        _active.clear()
        for kind, name in _replaceable():
            # Where somebody replaced ours meanwhile, ours stays below and passes everything on.
            if getattr(vars(kind)[name], "replaced", _before) is _before.get((kind, name)):
                setattr(kind, name, _before.pop((kind, name)))


def _replaceable() -> Iterator[tuple[Any, str]]:
    yield from ((kind, "with_config") for kind in _CLASSES)
    # Not all releases have the events of version 3.
    yield from ((BaseChatModel, name) for name in _ASKING if name in vars(BaseChatModel))


def _limiting(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def with_config(self: Any, config: Any = None, **kwargs: Any) -> Any:
        given = kwargs.get("rate_limiter") or (config or {}).get("rate_limiter")
        if not _active.is_set() or not isinstance(given, BaseRateLimiter | TokenLimiter):
            return plain(self, config, **kwargs)
        made, whole = limited_now(self, given)
        if whole:
            config, kwargs = _without(config or {}), _without(kwargs)
        if isinstance(made, BaseChatModel) and not config and not kwargs:
            # Still a model, which can bind tools.
            return made
        return plain(made, config, **kwargs)

    with_config.replaced = plain  # type: ignore[attr-defined]
    return with_config


def _asking(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def ask(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return plain(limited(self, config) if _active.is_set() else self, input, config, **kwargs)

    ask.replaced = plain  # type: ignore[attr-defined]
    return ask


def _without(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "rate_limiter"}
