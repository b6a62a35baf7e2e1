"""`DispatchLLM(compressor=...)`: after the lookup, before the reservation, once for all attempts, failing open."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from conversations import ASKED, DOORS, Counting
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llamaindex_models import close_clients, openai_at

from dispatch_core import (
    ConfigError,
    EmbeddingError,
    HashingEmbedder,
    MemoryStore,
    SemanticCache,
    Threshold,
    TokenLimiter,
)
from dispatch_core.limit import RetryPolicy
from dispatch_core.simulate import Fault, Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM

PROMPT = f"<context>{DOORS}</context>\n{ASKED}"
Ask = Callable[[Any], Awaitable[Any]]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


async def _now(value: Any) -> Any:
    return value


async def _all(chunks: Awaitable[Any]) -> Any:
    return [chunk async for chunk in await chunks]


def _said() -> list[ChatMessage]:
    return [ChatMessage(role="user", content=PROMPT)]


WAYS: dict[str, Ask] = {
    "chat": lambda llm: _now(llm.chat(_said())),
    "achat": lambda llm: llm.achat(_said()),
    "stream_chat": lambda llm: _now(list(llm.stream_chat(_said()))),
    "astream_chat": lambda llm: _all(llm.astream_chat(_said())),
    "complete": lambda llm: _now(llm.complete(PROMPT)),
    "acomplete": lambda llm: llm.acomplete(PROMPT),
    "stream_complete": lambda llm: _now(list(llm.stream_complete(PROMPT))),
    "astream_complete": lambda llm: _all(llm.astream_complete(PROMPT)),
    "predict": lambda llm: _now(llm.predict(DEFAULT_TEXT_QA_PROMPT_SEL, context_str=DOORS, query_str=ASKED)),
    "apredict": lambda llm: llm.apredict(DEFAULT_TEXT_QA_PROMPT_SEL, context_str=DOORS, query_str=ASKED),
}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return WAYS[request.param]


def prompt_tokens(sim: Simulator) -> int:
    tokens: int = sim.stats().prompt_tokens
    return tokens


async def test_the_model_reads_less_and_the_limiter_reserves_what_is_sent(sim: Simulator, ask: Ask) -> None:
    compressor = Counting()
    whole, short = TokenLimiter(rpm=1_000, tpm=1_000_000), TokenLimiter(rpm=1_000, tpm=1_000_000)
    await ask(DispatchLLM(openai_at(sim.url), rate_limiter=whole))
    sent = prompt_tokens(sim)
    await ask(DispatchLLM(openai_at(sim.url), rate_limiter=short, compressor=compressor))
    assert 0 < prompt_tokens(sim) - sent < sent
    assert short.stats().tokens_used < whole.stats().tokens_used
    assert compressor.asked == 1


async def test_the_cache_looks_for_the_whole_prompt_and_a_hit_compresses_nothing(sim: Simulator, ask: Ask) -> None:
    compressor, cache = Counting(), SemanticCache(HashingEmbedder(), MemoryStore(), policy=Threshold(1.0))
    llm = DispatchLLM(openai_at(sim.url), cache=cache, compressor=compressor)
    for _ in range(2):
        await ask(llm)
    await ask(DispatchLLM(openai_at(sim.url), cache=cache))
    assert compressor.asked == 1
    assert sim.stats().requests == 1


async def test_a_compressor_that_fails_leaves_the_prompt_as_it_is(sim: Simulator, ask: Ask, caplog: Any) -> None:
    await ask(DispatchLLM(openai_at(sim.url)))
    sent = prompt_tokens(sim)
    await ask(DispatchLLM(openai_at(sim.url), compressor=Counting(EmbeddingError("no encoder"))))
    assert prompt_tokens(sim) == 2 * sent
    assert "the compressor failed, calls go on without it: EmbeddingError: no encoder" in caplog.messages


async def test_all_attempts_send_what_was_made_once(ask: Ask) -> None:
    compressor = Counting()
    with Simulator(SimulatorConfig(latency=0, faults=(Fault(kind="error", count=2),))) as sim:
        limiter = TokenLimiter(rpm=6_000, tpm=1_000_000)
        llm = DispatchLLM(
            openai_at(sim.url), rate_limiter=limiter, retries=RetryPolicy(base=0.0), compressor=compressor
        )
        await ask(llm)
        assert sim.stats().by_status == {500: 2, 200: 1}
    assert compressor.asked == 1
    assert limiter.stats().open == 0


def test_copies_keep_their_compressor_and_another_takes_its_place(sim: Simulator) -> None:
    first, second = Counting(), Counting()
    llm = DispatchLLM(openai_at(sim.url), compressor=first)
    for one in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm)), copy.copy(llm)):  # noqa: S301
        one.complete(PROMPT)
    assert first.asked == 3
    llm.compressor = second
    llm.complete(PROMPT)
    assert (first.asked, second.asked) == (3, 1)
    llm.compressor = None
    llm.complete(PROMPT)
    assert second.asked == 1


def test_what_is_no_compressor_is_refused(sim: Simulator) -> None:
    with pytest.raises(ConfigError, match="compressor is a Compressor, got str"):
        DispatchLLM(openai_at(sim.url), compressor="gzip")  # type: ignore[arg-type]
    llm = DispatchLLM(openai_at(sim.url))
    with pytest.raises(ConfigError, match="compressor is a Compressor"):
        llm.compressor = 7
    assert llm.compressor is None
