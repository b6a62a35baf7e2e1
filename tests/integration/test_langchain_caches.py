"""Streams of a dispatched model through every cache that LangChain takes: ours, on a server, and LangChain's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_models import QUESTION, asked, model_of, streamed, summed
from servers import REDIS_8, REDIS_LIKE

from dispatch_core import HashingEmbedder
from dispatch_core.simulate import Simulator
from langchain_dispatch import SemanticCache, SemanticRedisCache, TokenRateLimiter, dispatch

CACHES = ["memory", "langchain", *REDIS_LIKE, *REDIS_8]


@pytest.fixture(params=CACHES)
async def any_cache(request: pytest.FixtureRequest) -> AsyncIterator[BaseCache]:
    if request.param == "langchain":
        yield InMemoryCache()
        return
    if request.param == "memory":
        ours = SemanticCache(embedder=HashingEmbedder())
    else:
        url = request.getfixturevalue(f"{request.param}_url")
        ours = SemanticRedisCache(url, embedder=HashingEmbedder(), namespace=str(id(request)))
    yield ours
    await ours.aclear()
    await ours.aclose()


@pytest.fixture(params=["of the model", "of all"])
async def model(
    request: pytest.FixtureRequest, provider: Simulator, any_cache: BaseCache, limiter: TokenRateLimiter
) -> AsyncIterator[BaseChatModel]:
    provider.reset()
    if request.param == "of the model":
        yield dispatch(model_of(provider), cache=any_cache, rate_limiter=limiter)
        return
    set_llm_cache(any_cache)
    yield dispatch(model_of(provider), rate_limiter=limiter)
    set_llm_cache(None)


def settle(cache: BaseCache) -> None:
    if isinstance(cache, SemanticCache):
        cache.flush()


async def test_a_stream_is_answered_again_without_a_call(
    model: Any, form: str, any_cache: BaseCache, provider: Simulator, limiter: TokenRateLimiter
) -> None:
    first = summed(await streamed(model, form))
    settle(any_cache)
    again = summed(await streamed(model, form))
    assert again.content == first.content
    assert again.id != first.id
    assert again.response_metadata["dispatch"]["cache_hit"] == "exact"
    assert (await asked(model, form)).content == first.content
    assert provider.stats().requests == limiter.stats().admitted == 1
    assert limiter.stats().open == 0


async def test_what_was_invoked_is_streamed(model: Any, form: str, any_cache: BaseCache, provider: Simulator) -> None:
    told = await asked(model, form)
    settle(any_cache)
    chunks = await streamed(dispatch(model, stream_chunk=10), form)
    assert summed(chunks).content == told.content
    assert len(chunks) > 3
    assert provider.stats().requests == 1


async def test_a_stream_that_was_cut_off_is_not_stored(
    model: Any, form: str, any_cache: BaseCache, provider: Simulator
) -> None:
    for _ in range(2):
        await streamed(model.bind(max_tokens=5), form, QUESTION)
        settle(any_cache)
    assert provider.stats().requests == 2
