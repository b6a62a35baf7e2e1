"""`DispatchMiddleware`: an agent's model calls are cached, limited and retried, whoever made the model."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import DOORS
from fakes import CountingEmbedder, in_another_process
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_models import PLENTY, QUESTION, Scripted, asked, left_nothing, model_of

from dispatch_core import ConfigError, Lossless, TokenLimiter
from dispatch_core.simulate import Simulator
from langchain_dispatch import RetryPolicy, SemanticCache, TokenRateLimiter
from langchain_dispatch.middleware import DispatchMiddleware

ASKED = {"messages": [("user", QUESTION)]}


@pytest.fixture
def cache() -> SemanticCache:
    return SemanticCache(embedder=CountingEmbedder())


async def nothing(seconds: float) -> None:
    """No wait."""


async def test_an_answer_from_the_cache_reserves_nothing(
    form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    provider.reset()
    ours = DispatchMiddleware(cache=cache, rate_limiter=limiter)
    agent = create_agent(model_of(provider), middleware=[ours])
    first = (await asked(agent, form, ASKED))["messages"][-1]
    again = (await asked(agent, form, ASKED))["messages"][-1]
    assert again.content == first.content
    assert again.response_metadata["dispatch"]["cache_hit"] == "exact"
    assert (provider.stats().requests, limiter.stats().admitted) == (1, 1)
    assert left_nothing(cache, limiter)


async def test_a_cached_answer_is_streamed_in_an_agent(form: str, provider: Simulator, cache: SemanticCache) -> None:
    provider.reset()
    agent: Any = create_agent(model_of(provider), middleware=[DispatchMiddleware(cache=cache, stream_chunk=5)])
    told = []
    for _ in range(2):
        if form == "async":
            chunks = [chunk async for chunk, _ in agent.astream(ASKED, stream_mode="messages")]
        else:
            chunks = [chunk for chunk, _ in agent.stream(ASKED, stream_mode="messages")]
        told.append([chunk.content for chunk in chunks])
    assert "".join(told[0]) == "".join(told[1])
    assert len(told[1]) > 2
    assert provider.stats().requests == 1


async def test_an_agents_calls_are_retried(form: str, limiter: TokenRateLimiter) -> None:
    policy = RetryPolicy(sleep=lambda seconds: None, asleep=nothing)
    plain = Scripted(failures=[ConnectionError("gone")])
    agent = create_agent(plain, middleware=[DispatchMiddleware(rate_limiter=limiter, retries=policy)])
    assert (await asked(agent, form, ASKED))["messages"][-1].content == "answer 2"
    assert (limiter.stats().admitted, limiter.stats().open) == (2, 0)


async def test_an_agents_prompts_are_compressed(form: str, provider: Simulator) -> None:
    compressor, sent = Lossless(), []
    long = {"messages": [("user", f"<context>{DOORS}\n\n{DOORS}</context>\n{QUESTION}")]}
    for middleware in ([], [DispatchMiddleware(compressor=compressor)]):
        provider.reset()
        await asked(create_agent(model_of(provider), middleware=middleware), form, long)
        sent.append(provider.stats().prompt_tokens)
    assert sent[1] < 0.7 * sent[0]


async def test_the_model_that_another_middleware_chose_is_limited(form: str, limiter: TokenRateLimiter) -> None:
    chosen = Scripted()

    class Choosing(AgentMiddleware[Any, Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model=chosen))

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return await handler(request.override(model=chosen))

    given = Scripted()
    agent = create_agent(given, middleware=[Choosing(), DispatchMiddleware(rate_limiter=limiter)])
    await asked(agent, form, ASKED)
    assert (chosen.calls, given.calls) == ([QUESTION], [])
    assert limiter.stats().admitted == 1
    assert chosen.rate_limiter is None, "the model itself stays as it was"


def test_a_core_limiter_is_taken_and_anything_else_refused_at_once() -> None:
    core = TokenLimiter(**PLENTY)
    create_agent(Scripted(), middleware=[DispatchMiddleware(rate_limiter=core)]).invoke(ASKED)
    assert core.stats().admitted == 1
    with pytest.raises(ConfigError, match="rate_limiter"):
        DispatchMiddleware(rate_limiter=5)  # type: ignore[arg-type]


def test_without_langchain_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["langchain"] = None
from dispatch_core import MissingExtra
from langchain_dispatch import *
try:
    import langchain_dispatch.middleware
except MissingExtra as missing:
    print(missing)
"""
    assert "pip install 'ai-dispatcher[agents]'" in in_another_process(code)
