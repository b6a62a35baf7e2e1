"""Limiters of one name on one server, and what they know."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dispatch_core import RequestTooLarge, TokenLimiter

Opened = Callable[..., TokenLimiter]
PATIENCE = 30.0


class Clock:
    """Real time, which a test may also let pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Stopped:
    """Time passes only when a test lets it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def desk_of(limiter: TokenLimiter) -> Any:
    return limiter._desk


def flushed(*limiters: TokenLimiter) -> None:
    for limiter in limiters:
        assert desk_of(limiter).flush(PATIENCE)


def free_of(limiter: TokenLimiter, most: int = 2_000) -> int:
    """The tokens that Redis would grant now, found by halving."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            held = limiter.try_reserve(middle)
        except RequestTooLarge:
            held = None
        if held is None:
            high = middle
        else:
            held.cancel()
            flushed(limiter)
            low = middle
    return low
