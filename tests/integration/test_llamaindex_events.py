"""What instrumentation sees of a `DispatchLLM`: misses with their reasons, hits, and waits for the quota."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher
from llamaindex_models import FORMS, Ask, Gated, close_clients, embedding_at, openai_at

from dispatch_core import (
    HashingEmbedder,
    MemoryStore,
    SemanticCache,
    SentenceTransformerEmbedder,
    Threshold,
    TokenLimiter,
)
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import (
    DispatchCacheHitEvent,
    DispatchCacheMissEvent,
    DispatchLLM,
    DispatchRateLimitWaitEvent,
    TokenRateLimiter,
)


class Seen(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event)

    def of(self, *kinds: Any) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler = Seen(events=[])
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


def narrow() -> TokenLimiter:
    """One call every ten milliseconds, by a clock that a slow machine does not hurry: it goes on when it is read."""
    ticks = itertools.count()
    return TokenLimiter(rpm=6000, burst=0.001, clock=lambda: next(ticks) * 0.0005)


@pytest.mark.parametrize("ask", FORMS)
async def test_a_miss_is_told_before_the_model_s_own_events_and_a_hit_alone(seen: Seen, ask: Ask) -> None:
    llm = DispatchLLM(Gated.made(), cache=SemanticCache(HashingEmbedder(), MemoryStore()))
    await ask(llm, "How do I pay?")
    names = [event.class_name() for event in seen.events]
    assert names[0] == "DispatchCacheMissEvent"
    (miss,) = seen.of(DispatchCacheMissEvent)
    assert (miss.reason, miss.similarity) == ("empty", None)
    seen.events.clear()
    await ask(llm, "How do I pay?")
    assert [event.class_name() for event in seen.events if "Span" not in event.class_name()] == [
        "DispatchCacheHitEvent"
    ]


def test_a_miss_says_what_was_nearest_and_why_it_was_refused(seen: Seen, minilm: SentenceTransformerEmbedder) -> None:
    llm = DispatchLLM(Gated.made(), cache=SemanticCache(minilm, MemoryStore(), policy=Threshold(0.99)))
    llm.complete("How do I return a rented bike?")
    llm.complete("How can I return a rental bike?")
    _, miss = seen.of(DispatchCacheMissEvent)
    assert miss.reason == "below-threshold"
    assert 0.8 < miss.similarity < 0.99
    assert json.loads(miss.model_dump_json())["reason"] == "below-threshold"


def test_a_call_past_the_cache_says_so_and_without_a_cache_nothing_is_said(seen: Seen) -> None:
    llm = DispatchLLM(Gated.made(), cache=SemanticCache(HashingEmbedder(), MemoryStore()))
    with llm.bypass_cache():
        llm.complete("How do I pay?")
    (miss,) = seen.of(DispatchCacheMissEvent)
    assert (miss.reason, miss.similarity) == ("bypassed", None)
    seen.events.clear()
    DispatchLLM(Gated.made()).complete("How do I pay?")
    assert not seen.of(DispatchCacheMissEvent, DispatchCacheHitEvent)


@pytest.mark.parametrize("ask", FORMS)
async def test_a_wait_for_the_quota_is_told_with_what_was_reserved(seen: Seen, ask: Ask) -> None:
    llm = DispatchLLM(Gated.made(), rate_limiter=narrow())
    await ask(llm, "one?")
    assert not seen.of(DispatchRateLimitWaitEvent)
    await ask(llm, "two?")
    (wait,) = seen.of(DispatchRateLimitWaitEvent)
    assert wait.waited > 0
    assert wait.input_tokens >= 1
    assert wait.output_tokens > 0


@pytest.mark.parametrize("ask", FORMS)
async def test_a_wait_is_told_without_a_wrapper_too(seen: Seen, sim: Simulator, ask: Ask) -> None:
    llm = openai_at(sim.url, rate_limiter=TokenRateLimiter(limiter=narrow()))
    await ask(llm, "one?")
    await ask(llm, "two?")
    assert [wait.model for wait in seen.of(DispatchRateLimitWaitEvent)] == ["gpt-4o-mini"]


def test_the_wait_of_an_embedding_names_its_model(seen: Seen, sim: Simulator) -> None:
    embedder = embedding_at(sim.url, rate_limiter=TokenRateLimiter(limiter=narrow()), embed_batch_size=1)
    embedder.get_text_embedding_batch(["one", "two"])
    (wait,) = seen.of(DispatchRateLimitWaitEvent)
    assert (wait.model, wait.input_tokens, wait.output_tokens) == ("text-embedding-3-small", 1, 0)
