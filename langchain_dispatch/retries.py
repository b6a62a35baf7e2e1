"""The loop that makes another attempt: each settles what it held, waits and reserves anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import wraps
from typing import Any

from langchain_core.language_models import BaseChatModel

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.limit import RetryPolicy
from langchain_dispatch.call import Call
from langchain_dispatch.observer import observer
from langchain_dispatch.rate_limiter import TokenRateLimiter

__all__ = ["Attempts", "RetryPolicy", "retried"]


class Attempts:
    """The attempts at one call; one that nobody announced, or that is being retried already, is made once."""

    def __init__(self, policy: RetryPolicy, model: BaseChatModel) -> None:
        self._policy = policy
        self._limiter = model.rate_limiter
        call = observer().current()
        self._call = None if call is None or call.retried else call
        self._failed = 0
        if self._call is not None:
            self._call.retried = True

    def again(self, error: Exception) -> Flow[None]:
        """Wait and reserve anew. Raises the error if it is the last; `LimitExceeded` if no turn comes in time."""
        call = self._call
        self._failed += 1
        wait = None if call is None else self._policy.wait_after(error, self._failed)
        if call is None or wait is None:
            raise error
        observer().failed(call, error)
        yield from step(self._policy.sleep, self._policy.asleep, wait)
        if not call.ended:
            yield from self._acquire(call)
        if call.ended:
            # A task was cancelled, and its thread knows nothing of it.
            call.settle(None)
            raise error

    def _acquire(self, call: Call) -> Flow[None]:
        limiter = self._limiter
        if isinstance(limiter, TokenRateLimiter):
            yield from limiter.acquiring(call)
        elif limiter is not None:
            yield from step(limiter.acquire, limiter.aacquire, blocking=True)


def retried(kind: type[BaseChatModel], policy: RetryPolicy) -> dict[str, Any]:
    """What asks the provider in a class of models, with retries. What the class does not have is not made up:
    LangChain asks for it."""
    made = {name: (getattr(kind, name), wrap) for name, wrap in _WRAPS.items()}
    return {
        name: wrap(plain, policy) for name, (plain, wrap) in made.items() if plain is not getattr(BaseChatModel, name)
    }


def _generate(plain: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    @wraps(plain)
    def generate(model: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        attempts = Attempts(policy, model)
        while True:
            try:
                return plain(model, *args, **kwargs)
            except Exception as error:
                run(attempts.again(error))

    return generate


def _agenerate(plain: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    @wraps(plain)
    async def agenerate(model: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        attempts = Attempts(policy, model)
        while True:
            try:
                return await plain(model, *args, **kwargs)
            except Exception as error:
                await arun(attempts.again(error))

    return agenerate


def _stream(plain: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    @wraps(plain)
    def stream(model: BaseChatModel, *args: Any, **kwargs: Any) -> Iterator[Any]:
        attempts = Attempts(policy, model)
        while True:
            begun = False
            try:
                for chunk in plain(model, *args, **kwargs):
                    begun = True
                    yield chunk
                return
            except Exception as error:
                if begun:
                    raise
                run(attempts.again(error))

    return stream


def _astream(plain: Callable[..., Any], policy: RetryPolicy) -> Callable[..., Any]:
    @wraps(plain)
    async def astream(model: BaseChatModel, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        attempts = Attempts(policy, model)
        while True:
            begun = False
            try:
                async with aclosing(plain(model, *args, **kwargs)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except Exception as error:
                if begun:
                    raise
                await arun(attempts.again(error))

    return astream


_WRAPS = {"_generate": _generate, "_agenerate": _agenerate, "_stream": _stream, "_astream": _astream}
