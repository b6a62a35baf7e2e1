"""Limiters that others publish, each used as its documentation or its framework uses it.

They are imported when built: one that is not installed is left out of the comparison. What a call costs is what a
client can know, the estimate of the prompt plus ``max_tokens``; none of these but token-throttle can take it back.
Where a framework acquires once per call and its SDK retries inside, so does the adapter; where a program has only a
library, it asks the library before every try.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from benchmarks.limiter.adapters import TRIES, GaveUp, Settings, send_with_backoff
from benchmarks.limiter.provider import Response, Send
from benchmarks.limiter.workload import Request
from dispatch_core.limit.feedback import retry_after

_POLL = 0.25
_FOREVER = 1e9


class LangChain:
    """`InMemoryRateLimiter` counts requests only; it is told as many as the tokens allow at the true mean."""

    def __init__(self, settings: Settings) -> None:
        limiter: Any = import_module("langchain_core.rate_limiters").InMemoryRateLimiter
        per_minute = min(settings.rpm, settings.tpm / settings.mean_tokens)
        self._limiter = limiter(requests_per_second=per_minute / 60)
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        await self._limiter.aacquire()
        return await send_with_backoff(request, send, self._rng)


class LlamaIndex:
    """`TokenBucketRateLimiter` could count tokens, but the framework calls it without any."""

    def __init__(self, settings: Settings) -> None:
        limiter: Any = import_module("llama_index.core.rate_limiter").TokenBucketRateLimiter
        self._limiter = limiter(requests_per_minute=settings.rpm, tokens_per_minute=settings.tpm)
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        await self._limiter.async_acquire()
        return await send_with_backoff(request, send, self._rng)


class AioLimiter:
    """Two leaky buckets, one for requests and one for tokens."""

    def __init__(self, settings: Settings) -> None:
        limiter: Any = import_module("aiolimiter").AsyncLimiter
        self._requests = limiter(settings.rpm, 60)
        self._tokens = limiter(settings.tpm, 60)
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        async def turn() -> None:
            await self._requests.acquire()
            await self._tokens.acquire(request.estimate)

        return await send_with_backoff(request, send, self._rng, turn)


class Limits:
    """The sliding-window counter of `limits`. It says yes or no; the program asks again every quarter of a second."""

    def __init__(self, settings: Settings) -> None:
        limits: Any = import_module("limits")
        storage: Any = import_module("limits.aio.storage").MemoryStorage
        strategies: Any = import_module("limits.aio.strategies")
        self._limiter = strategies.SlidingWindowCounterRateLimiter(storage())
        self._requests = limits.RateLimitItemPerMinute(int(settings.rpm))
        self._tokens = limits.RateLimitItemPerMinute(int(settings.tpm))
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        async def turn() -> None:
            while not await self._limiter.hit(self._tokens, "tokens", cost=request.estimate):
                await asyncio.sleep(_POLL)
            while not await self._limiter.hit(self._requests, "requests"):
                await asyncio.sleep(_POLL)

        return await send_with_backoff(request, send, self._rng, turn)


class ThrottledPy:
    """Two GCRA limiters of throttled-py, with its own waiting."""

    def __init__(self, settings: Settings) -> None:
        throttled: Any = import_module("throttled.asyncio")
        per_minute: Any = import_module("throttled").per_min
        store = throttled.MemoryStore()
        self._requests, self._tokens = (
            throttled.Throttled(key=name, using="gcra", quota=per_minute(int(limit)), store=store, timeout=_FOREVER)
            for name, limit in (("requests", settings.rpm), ("tokens", settings.tpm))
        )
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        async def turn() -> None:
            await self._requests.limit()
            await self._tokens.limit(cost=request.estimate)

        return await send_with_backoff(request, send, self._rng, turn)


class TokenThrottle:
    """token-throttle reserves and refunds; a rejected try is refunded whole."""

    def __init__(self, settings: Settings) -> None:
        library: Any = import_module("token_throttle")
        quotas = [
            library.Quota(metric="requests", limit=int(settings.rpm), per_seconds=60),
            library.Quota(metric="tokens", limit=int(settings.tpm), per_seconds=60),
        ]
        config = library.PerModelConfig(quotas=library.UsageQuotas(quotas))
        self._limiter = library.RateLimiter(config, backend=library.MemoryBackendBuilder())

    async def call(self, request: Request, send: Send) -> Response:
        for _ in range(1 + TRIES):
            async with self._limiter.reserve({"requests": 1, "tokens": request.estimate}, model="m") as handle:
                response = await send(request)
                handle.set_actual_usage(_used(request, response))
            if response.usage is not None:
                return response
            await asyncio.sleep(retry_after(response.headers) or 1.0)
        raise GaveUp


def _used(request: Request, response: Response) -> Mapping[str, int]:
    # Its refunds cannot be negative: usage above the reservation is cut.
    used = response.usage.total if response.usage is not None else 0
    return {"requests": 1, "tokens": min(used, request.estimate)}
