"""`ChatOpenAI(rate_limiter=TokenRateLimiter(...))`: LangChain's own seam, with tokens."""

from __future__ import annotations

from typing import Any

from langchain_core.rate_limiters import BaseRateLimiter

from dispatch_core import LimiterStats, LimitExceeded, TokenLimiter
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError
from dispatch_core.limit import limiter_of
from dispatch_core.types import Cost
from langchain_dispatch.call import Call
from langchain_dispatch.observer import observer
from langchain_dispatch.shared import Shared


class TokenRateLimiter(Shared, BaseRateLimiter):
    """A rate limiter that knows the tokens of each call: reserved before it is sent, settled by its real usage.

    ``rpm``, ``tpm`` and further settings are those of `dispatch_core.TokenLimiter`; or give one that exists as
    ``limiter``, to share a quota with other frameworks. ``timeout`` is the longest wait in seconds; beyond it a call
    raises `LimitExceeded`. Retries inside a provider's SDK are sent without asking: set ``max_retries=0`` there.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> model = FakeListChatModel(responses=["hello"], rate_limiter=TokenRateLimiter(rpm=60, tpm=10_000))
    >>> model.invoke("hi").content
    'hello'
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        limiter: TokenLimiter | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> None:
        self.limiter = limiter_of(limiter, rpm=rpm, tpm=tpm, **settings)
        self._timeout = timeout
        self._observer = observer()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait for a turn. Raises `LimitExceeded` and `RequestTooLarge`; False only if not ``blocking``."""
        return run(self.acquiring(self._observer.claim(), blocking=blocking))

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return await arun(self.acquiring(self._observer.claim(), blocking=blocking))

    def stats(self) -> LimiterStats:
        return self.limiter.stats()

    def acquiring(self, call: Call | None, *, blocking: bool = True) -> Flow[bool]:
        """A turn for this call, whose end settles it; without one a typical request is settled at once."""
        limiter, observer = self.limiter, self._observer
        cost = self._cost(call)
        timeout = self._timeout if blocking else 0.0
        try:
            reservation = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=timeout)
        except LimitExceeded:
            if blocking:
                raise
            return False
        if call is None:
            # Nothing will report the end of this call.
            reservation.settle(None)
        else:
            yield from step(observer.reserved, observer.areserved, call, limiter, reservation)
        return True

    def _cost(self, call: Call | None) -> Cost:
        """Without an announced call (a caller of ours outside a model) one typical request is reserved."""
        return call.cost(self.limiter) if call is not None else self.limiter.estimate("")


def as_rate_limiter(given: BaseRateLimiter | TokenLimiter) -> BaseRateLimiter:
    """LangChain's form of a limiter. Raises `ConfigError` for anything else."""
    if isinstance(given, TokenLimiter):
        return TokenRateLimiter(limiter=given)
    if isinstance(given, BaseRateLimiter):
        return given
    raise ConfigError(f"rate_limiter is a TokenRateLimiter or a TokenLimiter, got {type(given).__name__}")
