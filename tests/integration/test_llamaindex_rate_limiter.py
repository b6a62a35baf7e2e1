"""`TokenRateLimiter` in the framework's own field, around the real OpenAI integration and a real HTTP server."""

from __future__ import annotations

import copy
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from llama_index.core import MockEmbedding
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.llms.openai import OpenAI
from llamaindex_models import close_clients, openai_at

from dispatch_core import ConfigError, HashingEmbedder, LimitExceeded, MemoryStore, SemanticCache, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from dispatch_core.types import Cost
from llamaindex_dispatch import DispatchLLM, TokenRateLimiter
from llamaindex_dispatch.ledger import Held, Ledger
from llamaindex_dispatch.ledger import ledger as open_calls


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


def limited(url: str, limiter: TokenRateLimiter, **settings: Any) -> OpenAI:
    return openai_at(url, **{"rate_limiter": limiter, **settings})


def generous(**settings: Any) -> TokenRateLimiter:
    return TokenRateLimiter(**{"rpm": 6000, "tpm": 1_000_000, "burst": 60, **settings})


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


async def chat(llm: Any) -> None:
    llm.chat(user("How do I pay?"))


async def achat(llm: Any) -> None:
    await llm.achat(user("How do I pay?"))


async def stream_chat(llm: Any) -> None:
    list(llm.stream_chat(user("How do I pay?")))


async def astream_chat(llm: Any) -> None:
    _ = [chunk async for chunk in await llm.astream_chat(user("How do I pay?"))]


async def complete(llm: Any) -> None:
    llm.complete("How do I pay?")


async def acomplete(llm: Any) -> None:
    await llm.acomplete("How do I pay?")


async def stream_complete(llm: Any) -> None:
    list(llm.stream_complete("How do I pay?"))


async def astream_complete(llm: Any) -> None:
    _ = [chunk async for chunk in await llm.astream_complete("How do I pay?")]


FORMS = [chat, achat, stream_chat, astream_chat, complete, acomplete, stream_complete, astream_complete]
Ask = Callable[[Any], Awaitable[None]]


@pytest.mark.parametrize("ask", FORMS)
async def test_every_form_reserves_its_tokens_and_settles_its_usage(sim: Simulator, ask: Ask) -> None:
    limiter = generous()
    usage = {"stream_options": {"include_usage": True}}
    await ask(limited(sim.url, limiter, additional_kwargs=usage))
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.requests_used) == (1, 0, 1)
    assert stats.tokens_used == sim.stats().prompt_tokens + sim.stats().completion_tokens


@pytest.mark.parametrize("ask", FORMS)
async def test_a_limit_on_tokens_is_kept_where_the_framework_s_own_is_not(sim: Simulator, ask: Ask) -> None:
    llm = limited(sim.url, TokenRateLimiter(tpm=600, timeout=0), max_tokens=500)
    await ask(llm)
    llm.max_tokens = 570
    with pytest.raises(LimitExceeded):
        await ask(llm)
    assert sim.stats().requests == 1


@pytest.mark.parametrize("ask", FORMS)
async def test_a_429_closes_the_gate_and_leaves_nothing_open(ask: Ask) -> None:
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        limiter = generous(timeout=0)
        llm = limited(strict.url, limiter)
        await ask(llm)
        with pytest.raises(openai.RateLimitError):
            await ask(llm)
        assert (limiter.stats().throttled, limiter.stats().open) == (1, 0)
        with pytest.raises(LimitExceeded):
            await ask(llm)
        assert strict.stats().requests == 2


async def test_streams_closed_early_are_settled(sim: Simulator) -> None:
    limiter = generous()
    llm = limited(sim.url, limiter)
    stream = llm.stream_chat(user("How do I pay?"))
    next(stream)
    assert limiter.stats().open == 1
    stream.close()
    astream = await llm.astream_chat(user("How do I pay?"))
    await anext(astream)
    await astream.aclose()
    assert limiter.stats().open == 0


def test_a_stream_that_nobody_reads_is_settled_when_it_is_old(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = generous()
    llm = limited(sim.url, limiter)
    llm.stream_chat(user("How do I pay?"))
    assert limiter.stats().open == 1
    now = 1e9
    monkeypatch.setattr("llamaindex_dispatch.ledger.time.monotonic", lambda: now)
    llm.chat(user("How do I pay?"))
    assert limiter.stats().open == 0
    assert not open_calls._held


def test_the_ledger_may_be_entered_again_by_the_garbage_collector() -> None:
    """A finaliser may run between any two lines, here while a reservation is held and taken."""
    ledger = Ledger()
    limiter = TokenLimiter(rpm=6000)

    def reserve() -> Any:
        return limiter.acquire(Cost(1))

    class Reentrant(dict[str, Held]):
        """Collects garbage that settles another call in the middle of each operation."""

        def __setitem__(self, span: str, held: Held) -> None:
            ledger.settle("other", None)
            super().__setitem__(span, held)
            ledger.settle("other", None)

        def __iter__(self) -> Iterator[str]:
            for span in list(super().__iter__()):
                ledger.settle(span, None)
                yield span

    ledger.hold("other", limiter, reserve())
    ledger._held = Reentrant(ledger._held)

    def use() -> None:
        ledger.hold("one", limiter, reserve())
        ledger.hold("two", limiter, reserve())
        ledger.settle("two", None)
        ledger.fail("one", None)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert limiter.stats().open == 0


def test_one_limiter_serves_models_and_embedders(sim: Simulator) -> None:
    limiter = generous()
    limited(sim.url, limiter).chat(user("Hi?"))
    embedder = MockEmbedding(3)
    embedder.rate_limiter = limiter
    embedder.get_query_embedding("Hi?")
    embedder.get_text_embedding_batch(["a", "b"])
    assert limiter.stats().requests_used == 3
    assert limiter.stats().open == 0


def test_an_embedding_does_not_claim_the_call_of_a_model_without_a_limiter(sim: Simulator) -> None:
    limiter = generous()
    limited(sim.url, limiter, rate_limiter=None).chat(user("Hi?"))
    embedder = MockEmbedding(3)
    embedder.rate_limiter = limiter
    embedder.get_query_embedding("Hi?")
    assert limiter.stats().tokens_used == 1


def test_a_caller_may_say_the_tokens() -> None:
    limiter = generous()
    limiter.acquire(250)
    assert limiter.stats().tokens_used == 250


def test_any_model_of_the_framework_can_be_limited() -> None:
    limiter = generous()
    llm = MockLLM(max_tokens=2)
    llm.rate_limiter = limiter
    llm.complete("Hi")
    list(llm.stream_complete("Hi"))
    assert limiter.stats().admitted == 2
    assert limiter.stats().open == 0


def test_a_core_limiter_is_shared_and_copies_of_a_model_share_it() -> None:
    core = TokenLimiter(rpm=60)
    limiter = TokenRateLimiter(limiter=core)
    assert limiter.limiter is core
    llm = MockLLM()
    llm.rate_limiter = limiter
    assert copy.deepcopy(llm).rate_limiter is limiter
    with pytest.raises(ConfigError):
        TokenRateLimiter(limiter=core, rpm=60)
    with pytest.raises(ConfigError):
        TokenRateLimiter()


def test_inside_a_dispatch_llm_a_hit_does_not_acquire(sim: Simulator) -> None:
    limiter = generous()
    llm = DispatchLLM(limited(sim.url, limiter), cache=SemanticCache(HashingEmbedder(), MemoryStore()))
    for _ in range(3):
        llm.chat(user("Hi?"))
    assert (limiter.stats().admitted, limiter.stats().open) == (1, 0)
