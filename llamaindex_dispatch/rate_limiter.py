"""`OpenAI(rate_limiter=TokenRateLimiter(...))`: the framework's own seam, with tokens.

LlamaIndex calls ``acquire()`` before every call without a word about it: its own limit of tokens never waits.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.rate_limiter import BaseRateLimiter

from dispatch_core import LimiterStats, TokenLimiter
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.limit import limiter_of
from dispatch_core.types import Cost
from llamaindex_dispatch.events import announce_wait
from llamaindex_dispatch.hearing import alisten, listen
from llamaindex_dispatch.ledger import ledger
from llamaindex_dispatch.listener import attach, claim


class TokenRateLimiter(BaseRateLimiter):
    """A rate limiter that knows the tokens of each call: reserved before it is sent, settled by its real usage.

    ``rpm``, ``tpm`` and further settings are those of `dispatch_core.TokenLimiter`; or give one that exists as
    ``limiter``, to share a quota. ``timeout`` is the longest wait in seconds; beyond it a call raises
    `LimitExceeded`. Embedding models are charged for the texts of every batch. Where a provider's SDK speaks through
    httpx, the headers of its responses tell the limiter where the quota stands, and an embedding costs what the
    provider counted. Retries inside an SDK are sent without asking: set ``max_retries=0`` there.

    >>> from llama_index.core.llms import MockLLM
    >>> llm = MockLLM(max_tokens=2)
    >>> llm.rate_limiter = TokenRateLimiter(rpm=60, tpm=10_000)
    >>> llm.complete("hi").text
    'text text'
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
        self.timeout = timeout
        attach()

    def acquire(self, num_tokens: int = 0) -> None:
        """Wait for a turn. Raises `LimitExceeded` and `RequestTooLarge`."""
        run(self._acquire(num_tokens))

    async def async_acquire(self, num_tokens: int = 0) -> None:
        await arun(self._acquire(num_tokens))

    def stats(self) -> LimiterStats:
        return self.limiter.stats()

    def _acquire(self, num_tokens: int) -> Flow[None]:
        call, limiter = claim(), self.limiter
        cost = Cost(num_tokens) if call is None or num_tokens else call.cost(limiter)
        if call is not None:
            yield from step(listen, alisten, call.model, call.told)
        reservation = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=self.timeout)
        announce_wait(reservation)
        if call is None:
            # Nothing will report the end of this call.
            reservation.settle(None)
        else:
            ledger.hold(call.name, limiter, reservation, call.told)

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenRateLimiter:
        """One quota however often the model that it guards is copied."""
        return self
