"""Limiters that share a quota; a provider, and a dispatched model that asks it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FORMS
from langchain_models import PLENTY, model_of
from sharing import PATIENCE, Opened

from dispatch_core import HashingEmbedder, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch


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


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as running:
        yield running


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cache() -> SemanticCache:
    return SemanticCache(embedder=HashingEmbedder())


@pytest.fixture
def limiter() -> TokenRateLimiter:
    return TokenRateLimiter(**PLENTY)


@pytest.fixture
def model(provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter) -> Any:
    provider.reset()
    return dispatch(model_of(provider), cache=cache, rate_limiter=limiter)
