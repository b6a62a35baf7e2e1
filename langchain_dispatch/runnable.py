"""`with_rate_limiter(chain, limiter)`: the limiter goes inside the models of a chain, wherever they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.configurable import RunnableConfigurableAlternatives, RunnableConfigurableFields
from langchain_core.runnables.router import RouterRunnable
from langchain_core.runnables.utils import get_function_nonlocals

from dispatch_core import TokenLimiter
from langchain_dispatch.chat import dispatch
from langchain_dispatch.given import is_configurable
from langchain_dispatch.observer import observer
from langchain_dispatch.rate_limiter import as_rate_limiter

R = TypeVar("R", bound=Runnable[Any, Any])

_PARTS: tuple[tuple[type[Runnable[Any, Any]], tuple[str, ...]], ...] = (
    (RunnableSequence, ("first", "middle", "last")),
    (RunnableParallel, ("steps__",)),
    (RunnableAssign, ("mapper",)),
    (RunnableBranch, ("branches", "default")),
    (RunnableWithFallbacks, ("runnable", "fallbacks")),
    (RunnableConfigurableAlternatives, ("default", "alternatives")),
    (RunnableConfigurableFields, ("default",)),
    (RouterRunnable, ("runnables",)),
    (RunnableBindingBase, ("bound",)),
    (RunnableEachBase, ("bound",)),
)
"""The runnables that are made of others, and their fields that hold those."""


def with_rate_limiter(runnable: R, rate_limiter: BaseRateLimiter | TokenLimiter) -> R:
    """A copy of a chain in which every chat model asks this limiter; the chain itself stays as it is.

    Looks into sequences, bindings (``bind_tools``, ``with_config``, ``with_retry``), structured output, fallbacks,
    parallels, ``assign``, branches, routers, alternatives, configurable fields and ``map``.

    Raises TypeError, and says what to do, where a model is out of reach: in the variables of a function, in a
    compiled graph, in a runnable of an unknown kind; and for a completion model (`BaseLLM`), whose rate limiter
    LangChain ignores, and a chain without any chat model.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_core.output_parsers import StrOutputParser
    >>> from langchain_dispatch import TokenRateLimiter
    >>> chain = FakeListChatModel(responses=["hello"]) | StrOutputParser()
    >>> limiter = TokenRateLimiter(rpm=60)
    >>> with_rate_limiter(chain, limiter).invoke("How do I greet a cat?")
    'hello'
    >>> limiter.stats().admitted
    1
    """
    return _Swap(rate_limiter, patient=False).whole(runnable)


def limited_now(runnable: R, rate_limiter: BaseRateLimiter | TokenLimiter) -> tuple[R, bool]:
    """The same, and whether nothing was left that only a call may reach: what is out of reach stays as it is."""
    swap = _Swap(rate_limiter, patient=True)
    return swap.whole(runnable), not swap.left


class _Swap:
    """Replaces models by limited copies, and counts those that it ``found``; if it is ``patient``, what is out of
    reach is ``left``, else refused."""

    def __init__(self, limiter: BaseRateLimiter | TokenLimiter, *, patient: bool) -> None:
        self._limiter = as_rate_limiter(limiter)
        self._patient = patient
        self.found = self.left = 0

    def whole(self, runnable: R) -> R:
        observer()
        made: R = self(runnable)
        if not self.found and not self.left:
            raise TypeError(f"there is no chat model in this {type(runnable).__name__}: nothing would be limited")
        return made

    def __call__(self, part: Any) -> Any:
        if isinstance(part, BaseChatModel):
            self.found += 1
            return part.model_copy(update={"rate_limiter": self._limiter})
        if is_configurable(part):
            self.found += 1
            return dispatch(part, rate_limiter=self._limiter)
        if isinstance(part, Runnable):
            return self._runnable(part)
        if isinstance(part, Mapping):
            return {name: self(value) for name, value in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(self(value) for value in part)
        return self._later(part) if callable(part) else part

    def _runnable(self, part: Runnable[Any, Any]) -> Runnable[Any, Any]:
        for kind, names in _PARTS:
            if isinstance(part, kind):
                made: Any = part
                return made.model_copy(update={name: self(getattr(part, name)) for name in names})  # type: ignore[no-any-return]
        if self._patient and (isinstance(part, RunnableLambda | RunnableGenerator) or _is_graph(part)):
            self.left += 1
        else:
            _refuse_what_is_out_of_reach(part)
        return part

    def _later(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """An alternative that is made when it is chosen."""
        self.found += 1
        return lambda: self(make())


def _refuse_what_is_out_of_reach(part: Runnable[Any, Any]) -> None:
    name = type(part).__name__
    if isinstance(part, BaseLLM):
        raise TypeError(f"LangChain asks no rate limiter for a completion model such as {name}: use a chat model")
    if _is_graph(part):
        raise TypeError(
            "the models of a compiled graph are out of reach: build it with models that have the limiter, "
            "create_agent(dispatch(model, rate_limiter=limiter), ...), or give the agent "
            "middleware=[DispatchMiddleware(rate_limiter=limiter)]"
        )
    if any(_holds_a_model(inside) for inside in _inside(part)):
        raise TypeError(
            f"a {name} holds a model that cannot be replaced: give that model its limiter where it is made, "
            "dispatch(model, rate_limiter=limiter)"
        )


def _is_graph(part: Runnable[Any, Any]) -> bool:
    return any(kind.__module__.startswith("langgraph.") for kind in type(part).__mro__)


def _inside(part: Runnable[Any, Any]) -> Iterator[Any]:
    """What a runnable of another kind holds: the variables of its function, or its fields."""
    if isinstance(part, RunnableLambda):
        yield from part.deps
    elif isinstance(part, RunnableGenerator):
        function = getattr(part, "_transform", None) or part._atransform
        yield from (getattr(value, "__self__", value) for value in get_function_nonlocals(function))
    else:
        yield from vars(part).values()


def _holds_a_model(part: Any) -> bool:
    if isinstance(part, BaseChatModel | BaseLLM):
        return True
    if isinstance(part, Mapping):
        return any(_holds_a_model(value) for value in part.values())
    if isinstance(part, Sequence) and not isinstance(part, str | bytes):
        return any(_holds_a_model(value) for value in part)
    if not isinstance(part, Runnable):
        return False
    known = next((names for kind, names in _PARTS if isinstance(part, kind)), None)
    held = _inside(part) if known is None else (getattr(part, name) for name in known)
    return any(_holds_a_model(value) for value in held)
