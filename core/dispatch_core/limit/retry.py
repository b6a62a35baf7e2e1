"""`RetryPolicy`: which failures are worth another attempt, and how long to wait.

A provider's SDK retries on its own, without asking a rate limiter: three requests on one reservation. The fronts'
own retries settle what an attempt held, wait and reserve anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dispatch_core.errors import ConfigError, DispatchError
from dispatch_core.limit.feedback import feedback_of

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
    """When a failed call is made again: ``retries=RetryPolicy()`` in a front.

    At most ``attempts`` calls are made. What is worth another: 429, 408, 500, 502, 503, 504, 529 and connections that
    failed, but no spent budget, and nothing that the provider forbids by ``x-should-retry``. The wait is what
    ``retry-after-ms`` or ``retry-after`` say, else about ``base`` seconds, doubled with each attempt; up to a quarter
    more, so that not all come back at once. A wait longer than ``max_wait`` seconds is not waited for: the error is
    raised. Every attempt reserves anew with the model's rate limiter: `LimitExceeded` if it gets no turn in time. A
    stream is retried before its first chunk.

    Set ``max_retries=0`` on the model: an SDK's own retries are sent without asking the limiter. Tests may replace
    ``sleep``, ``asleep`` and ``random`` (in [0, 1)). Raises `ConfigError` for settings that cannot work.

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
        return None if wait > self.max_wait else min(self.max_wait, wait * (1 + self.random() / 4))


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
