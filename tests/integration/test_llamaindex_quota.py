"""`OpenAI(rate_limiter=TokenRateLimiter(tpm=...))` alone holds a quota of tokens, and LlamaIndex's own does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from llama_index.core.rate_limiter import BaseRateLimiter, SlidingWindowRateLimiter, TokenBucketRateLimiter
from llamaindex_models import close_clients, embedding_at, openai_at, user

from dispatch_core import LimitExceeded
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import TokenRateLimiter

TOKENS = 1_000
"""What the provider allows in a window. The calls below cost more than twice as much."""

ROUNDS = 8
TEXT = "The Ghent shop is open from nine until half past six, and closed on Sundays. " * 2


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


async def ask_all(url: str, limiter: BaseRateLimiter) -> list[Any]:
    """Chats, streams and embeddings at once, in one quota; errors are results."""
    streams = {"stream_options": {"include_usage": True}}
    llm = openai_at(url, rate_limiter=limiter, max_tokens=64, additional_kwargs=streams)
    embedder = embedding_at(url, rate_limiter=limiter)

    async def chat(number: int) -> Any:
        return await llm.achat(user(f"{TEXT} Question {number}?"))

    async def stream(number: int) -> Any:
        return [chunk async for chunk in await llm.astream_chat(user(f"{TEXT} Stream {number}?"))]

    async def embed(number: int) -> Any:
        return await embedder.aget_text_embedding_batch([f"{TEXT} {number}", TEXT])

    calls = [call(number) for number in range(ROUNDS) for call in (chat, stream, embed)]
    return await asyncio.gather(*calls, return_exceptions=True)


# The window is long, so that a slow machine holds the quota for nobody; who would have to wait is refused instead.
async def test_ours_holds_a_quota_of_tokens_without_a_wrapper() -> None:
    with Simulator(SimulatorConfig(latency=0, tpm=TOKENS, window=60.0)) as provider:
        limiter = TokenRateLimiter(tpm=TOKENS, burst=60.0, timeout=0)
        results = await ask_all(provider.url, limiter)
        stats = provider.stats()
    refused = [result for result in results if isinstance(result, LimitExceeded)]
    failed = [result for result in results if isinstance(result, BaseException)]
    assert refused
    assert refused == failed
    assert (stats.rejected_429, stats.requests) == (0, 3 * ROUNDS - len(refused))
    assert 0.6 * TOKENS < stats.prompt_tokens + stats.completion_tokens <= TOKENS
    assert (limiter.stats().open, limiter.stats().throttled) == (0, 0)


@pytest.mark.parametrize("own", [TokenBucketRateLimiter, SlidingWindowRateLimiter])
async def test_the_framework_s_own_does_not(own: Any) -> None:
    with Simulator(SimulatorConfig(latency=0, tpm=TOKENS, window=60.0)) as provider:
        results = await ask_all(provider.url, own(tokens_per_minute=TOKENS))
        refused = [result for result in results if isinstance(result, openai.RateLimitError)]
        assert provider.stats().rejected_429 == len(refused) > 0
