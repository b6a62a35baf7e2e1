"""Limiters that share a quota."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sharing import PATIENCE, Opened

from dispatch_core import TokenLimiter


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def open_one(name: str) -> Iterator[Opened]:
    """Opens limiters of one name, as several processes do; they are closed in the end."""
    limiters: list[TokenLimiter] = []

    def opened(url: str, **settings: Any) -> TokenLimiter:
        # An hour's burst at once, so that nothing is paced but the window.
        limits = {} if {"rpm", "tpm", "concurrency"} & settings.keys() else {"tpm": 1_000}
        # A busy machine is no outage.
        url = url if "?" in url else f"{url}?socket_timeout={PATIENCE}"
        limiters.append(TokenLimiter(**{"redis": url, "name": name, "burst": 60.0, **limits, **settings}))
        return limiters[-1]

    yield opened
    for limiter in limiters:
        limiter.close()


@pytest.fixture
def opened(redis_like_url: str, open_one: Opened) -> Opened:
    return lambda **settings: open_one(redis_like_url, **settings)
