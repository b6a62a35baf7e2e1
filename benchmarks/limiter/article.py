"""The limiter that a well-known article prints, rebuilt from what it does rather than from its text.

It keeps a bucket of one minute's tokens. Its faults are kept on purpose: after a sleep the bucket is emptied but the
instant of the last refill stays before the sleep, so the slept time is credited a second time; the sleep happens
while the lock is held, so a small call waits behind a large one even if it would fit; answers are never counted;
and a 429 teaches it nothing. It counts prompts exactly, with the model's tokenizer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.limiter.adapters import Settings, send_with_backoff
from benchmarks.limiter.provider import Response, Send
from benchmarks.limiter.workload import Request


class ArticleBucket:
    """Limits prompt tokens per minute; admits twice as many in steady state, and three times in the first minute."""

    def __init__(self, tpm: float, clock: Callable[[], float]) -> None:
        self._capacity = tpm
        self._rate = tpm / 60
        self._clock = clock
        self._tokens = tpm
        self._last_refill = clock()
        self._lock = asyncio.Lock()

    async def acquire(self, tokens: int) -> None:
        async with self._lock:
            now = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now - self._last_refill) * self._rate)
            self._last_refill = now
            if self._tokens >= tokens:
                self._tokens -= tokens
                return
            await asyncio.sleep((tokens - self._tokens) / self._rate)
            self._tokens = 0.0


class Article:
    """The bucket in front of the SDK, whose retries it does not see."""

    def __init__(self, settings: Settings) -> None:
        self._bucket = ArticleBucket(settings.tpm, settings.clock)
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        await self._bucket.acquire(request.prompt_tokens)
        return await send_with_backoff(request, send, self._rng)
