"""The limiters under test behind one protocol: ours, none at all, and the oracle's empty hands."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.limiter.provider import Response, Send
from benchmarks.limiter.styles import Style
from benchmarks.limiter.workload import Request
from dispatch_core import TokenLimiter
from dispatch_core.limit.feedback import retry_after

TRIES = 6
_BACKOFF_FIRST = 1.0


class GaveUp(Exception):
    """The provider said 429 to every try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a limiter is told: limits per minute, the style of the provider, and the true mean of tokens per call."""

    rpm: float
    tpm: float
    style: Style
    mean_tokens: float
    clock: Callable[[], float]
    rng: random.Random
    timeout: float | None = None
    ours: Mapping[str, Any] = field(default_factory=dict)


class Adapter(Protocol):
    async def call(self, request: Request, send: Send) -> Response:
        """The answer; or `GaveUp`, or `LimitExceeded` when the limiter refuses."""
        ...


PROFILES: Mapping[Style, Mapping[str, Any]] = {
    "sliding": {"profile": "window"},
    "bucket": {"profile": "bucket"},
    "second": {"profile": "window"},
    "slices": {"profile": "azure"},
}
"""What a user who has read the provider's documentation tells our limiter; settings it does not know are left out."""


class Ours:
    """`TokenLimiter`: reserve, send, settle; a 429 is observed and the call queues again, at most six times."""

    def __init__(self, settings: Settings) -> None:
        known = inspect.signature(TokenLimiter).parameters
        told = {name: value for name, value in PROFILES[settings.style].items() if name in known}
        limits = {"rpm": settings.rpm, "tpm": settings.tpm, "clock": settings.clock}
        self._limiter = TokenLimiter(**{**limits, **told, **settings.ours})
        self._timeout = settings.timeout

    async def call(self, request: Request, send: Send) -> Response:
        cost = self._limiter.estimate(request.text, max_tokens=request.max_tokens)
        async with self._limiter.reserve(cost, timeout=self._timeout) as reservation:
            for _ in range(TRIES):
                response = await send(request)
                if not reservation.throttled(response.status, response.headers):
                    reservation.settle(response.usage, response.headers)
                    return response
                await reservation.aagain()
        raise GaveUp


class Backoff:
    """No limiter: send, and after a 429 try again as SDKs do."""

    def __init__(self, settings: Settings) -> None:
        self._rng = settings.rng

    async def call(self, request: Request, send: Send) -> Response:
        return await send_with_backoff(request, send, self._rng)


class Straight:
    """For the oracle, which does the waiting itself."""

    def __init__(self, settings: Settings) -> None:
        pass

    async def call(self, request: Request, send: Send) -> Response:
        return await send(request)


async def send_with_backoff(
    request: Request, send: Send, rng: random.Random, turn: Callable[[], Awaitable[object]] | None = None
) -> Response:
    """Six tries; between them, at random, 1 to 2, to 4, ... s, but not less than the provider's ``retry-after``.

    That is nearly tenacity's ``wait_random_exponential(min=1)``, the recipe that OpenAI's cookbook gives. ``turn`` is
    awaited before every try.
    """
    for attempt in range(TRIES):
        if turn is not None:
            await turn()
        response = await send(request)
        if response.status != 429:
            return response
        if attempt < TRIES - 1:
            pause = rng.uniform(_BACKOFF_FIRST, _BACKOFF_FIRST * 2 ** (attempt + 1))
            await asyncio.sleep(max(pause, retry_after(response.headers) or 0.0))
    raise GaveUp
