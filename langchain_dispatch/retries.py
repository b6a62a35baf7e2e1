"""`RetryPolicy`: which failures are worth another attempt, how long to wait, and the loop that makes it.

A provider's SDK retries on its own, without asking a rate limiter: three requests on one reservation. Here every
attempt settles what it held, waits and reserves anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from langchain_core.language_models import BaseChatModel

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError, DispatchError
from dispatch_core.limit import feedback_of
from langchain_dispatch.call import Call
from langchain_dispatch.observer import observer
from langchain_dispatch.rate_limiter import TokenRateLimiter

_PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
_LOST = frozenset(
    {
        *("APIConnectionError", "APITimeoutError", "ConnectionError", "TimeoutError", "TransportError"),
        *("ClientConnectionError", "EndpointConnectionError", "ServiceUnavailable", "DeadlineExceeded"),
    }
)
"""Names of classes, for SDKs change their HTTP library: a connection that failed, whatever raised it."""


def _random() -> float:
    return random.random()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is made again: ``dispatch(model, retries=RetryPolicy())``.

    At most ``attempts`` calls are made. What is worth another: 429, 408, 500, 502, 503, 504, 529 and connections that
    failed, but no spent budget, and nothing that the provider forbids by ``x-should-retry``. The wait is what
    ``retry-after-ms`` or ``retry-after`` say, else about ``base`` seconds, doubled with each attempt; up to a quarter
    more, so that not all come back at once. A wait longer than ``max_wait`` seconds is not waited for: the error is
    raised. Every attempt reserves anew with the model's rate limiter: `LimitExceeded` if it gets no turn in time. A
    stream is retried before its first chunk.

    Set ``max_retries=0`` on the model: an SDK's own retries are sent without asking the limiter. Tests may replace
    ``sleep``, ``asleep`` and ``random`` (in [0, 1)). Raises `ConfigError` for settings that cannot work.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from langchain_dispatch import dispatch
    >>> model = FakeListChatModel(responses=["hello"])
    >>> dispatch(model, retries=RetryPolicy(attempts=4, max_wait=20)).invoke("How do I greet a cat?").content
    'hello'
    >>> RetryPolicy(random=lambda: 0.0).wait_after(ConnectionError("gone"), attempt=2)
    1.0
    >>> RetryPolicy().wait_after(ValueError("no"), attempt=1) is None
    True
    """

    attempts: int = 3
    max_wait: float = 60.0
    base: float = 0.5
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    asleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)
    random: Callable[[], float] = field(default=_random, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise ConfigError(f"attempts is a number of calls, at least 1, got {self.attempts!r}")
        if not self.max_wait >= 0 or not self.base >= 0:
            raise ConfigError(f"max_wait and base are seconds, got {self.max_wait!r} and {self.base!r}")

    def wait_after(self, error: BaseException, attempt: int) -> float | None:
        """Seconds from the failure of the ``attempt``-th call to the next; None if there is none."""
        if attempt >= self.attempts or not passing(error):
            return None
        feedback = feedback_of(error)
        told = None if feedback is None else feedback.retry_after
        wait = min(self.base * 2.0 ** min(attempt - 1, 64), self.max_wait) if told is None else told
        return None if wait > self.max_wait else wait * (1 + self.random() / 4)


def passing(error: BaseException) -> bool:
    """Is this an error that the next attempt may not meet? By its shape, never by an SDK's class."""
    if isinstance(error, DispatchError):
        return False
    response: Any = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    feedback = feedback_of(error)
    if feedback is None:
        # A spent budget has a status; what has none never reached the provider.
        lost = any(kind.__name__ in _LOST for kind in type(error).__mro__)
        return lost and not isinstance(status, int)
    told = (feedback.headers or {}).get("x-should-retry")
    return feedback.status in _PASSING if told not in ("true", "false") else told == "true"


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
