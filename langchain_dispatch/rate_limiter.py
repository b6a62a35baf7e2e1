"""`ChatOpenAI(rate_limiter=TokenRateLimiter(...))`: LangChain's own seam, with tokens."""

from __future__ import annotations

from typing import Any

from langchain_core.rate_limiters import BaseRateLimiter

from dispatch_core import ConfigError, LimiterStats, LimitExceeded, TokenLimiter
from dispatch_core.types import Cost
from langchain_dispatch.observer import Call, observer


class TokenRateLimiter(BaseRateLimiter):
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
        if limiter is not None and (rpm is not None or tpm is not None or settings):
            raise ConfigError("give either a limiter or its settings, not both")
        self.limiter = limiter or TokenLimiter(rpm=rpm, tpm=tpm, **settings)
        self._timeout = timeout
        self._observer = observer()

    def acquire(self, *, blocking: bool = True) -> bool:
        call = self._observer.claim()
        cost = self._cost(call)
        try:
            reservation = self.limiter.acquire(cost, timeout=self._patience(blocking))
        except LimitExceeded:
            if blocking:
                raise
            return False
        if call is not None:
            self._observer.hold(call, self.limiter, reservation)
        else:
            reservation.settle(None)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        call = self._observer.claim()
        cost = self._cost(call)
        try:
            reservation = await self.limiter.aacquire(cost, timeout=self._patience(blocking))
        except LimitExceeded:
            if blocking:
                raise
            return False
        if call is not None:
            self._observer.hold(call, self.limiter, reservation)
            self._observer.watch(call)
        else:
            reservation.settle(None)
        return True

    def stats(self) -> LimiterStats:
        return self.limiter.stats()

    def _patience(self, blocking: bool) -> float | None:
        return self._timeout if blocking else 0.0

    def _cost(self, call: Call | None) -> Cost:
        """Without an announced call (a caller of ours outside a model) one typical request is reserved."""
        return call.cost(self.limiter) if call is not None else self.limiter.estimate("")
