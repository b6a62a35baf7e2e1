"""The LangChain rate limiter against a provider over HTTP: right reservations, real tokens, nothing leaked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from dispatch_core import ConfigError, Feedback, LimitExceeded, RequestTooLarge, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch

PLENTY = {"rpm": 60_000.0, "tpm": 60_000_000.0}


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as running:
        yield running


@pytest.fixture
def limiter() -> TokenRateLimiter:
    return TokenRateLimiter(**PLENTY)


def model_of(provider: Simulator, limiter: TokenRateLimiter | None, **settings: Any) -> ChatOpenAI:
    given = {"model": "sim", "base_url": provider.url, "api_key": "k", "max_retries": 0, **settings}
    return ChatOpenAI(**given, rate_limiter=limiter)


def spent(message: Any) -> int:
    return int(message.usage_metadata["total_tokens"])


def test_invoke_reserves_once_and_settles_the_real_tokens(provider: Simulator, limiter: TokenRateLimiter) -> None:
    answer = model_of(provider, limiter).invoke("How do I bake bread?")
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.tokens_used) == (1, 0, spent(answer))


async def test_ainvoke_reserves_once_and_settles_the_real_tokens(
    provider: Simulator, limiter: TokenRateLimiter
) -> None:
    answer = await model_of(provider, limiter).ainvoke("How do I bake bread?")
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.tokens_used) == (1, 0, spent(answer))


def test_stream_settles_the_real_tokens(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter, stream_usage=True)
    answer = None
    for chunk in model.stream("How do I bake bread?"):
        answer = chunk if answer is None else answer + chunk
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.tokens_used) == (1, 0, spent(answer))


async def test_astream_without_usage_settles_what_was_streamed(
    provider: Simulator, limiter: TokenRateLimiter
) -> None:
    model = model_of(provider, limiter, stream_usage=False)
    async for _ in model.astream("How do I bake bread?"):
        pass
    stats = limiter.stats()
    assert (stats.admitted, stats.open) == (1, 0)
    assert 0 < stats.tokens_used < 256


async def test_batches_and_parallels_reserve_once_per_call(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter)
    model.batch([f"question {n}" for n in range(5)])
    await model.abatch([f"question {n}" for n in range(5)])
    RunnableParallel(a=model, b=model).invoke("both")
    assert (limiter.stats().admitted, limiter.stats().open) == (12, 0)


def test_threads_share_one_limiter(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: model.invoke(f"question {n}"), range(40)))
    assert (limiter.stats().admitted, limiter.stats().open) == (40, 0)
    assert limiter.stats().tokens_used == sum(spent(answer) for answer in answers)


def test_event_loops_share_one_limiter(limiter: TokenRateLimiter) -> None:
    model = FakeListChatModel(responses=["a"], rate_limiter=limiter)
    for _ in range(2):
        asyncio.run(model.ainvoke("How do I bake bread?"))
    assert (limiter.stats().admitted, limiter.stats().open) == (2, 0)


async def test_a_sync_call_inside_a_running_loop_works(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model_of(provider, limiter).invoke("How do I bake bread?")
    assert limiter.stats().open == 0


def test_max_tokens_are_reserved() -> None:
    limiter = TokenRateLimiter(rpm=60, tpm=1000)
    model = ChatOpenAI(model="sim", base_url="http://127.0.0.1:9", api_key="k", max_tokens=5000, rate_limiter=limiter)
    with pytest.raises(RequestTooLarge, match=r"50\d\d tokens, the limit is 1000"):
        model.invoke("hi")
    assert limiter.stats().open == 0


def test_a_cache_hit_reserves_nothing(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter, cache=SemanticCache())
    model.invoke("How do I bake bread?")
    model.invoke("How do I bake bread?")
    assert limiter.stats().admitted == 1


def test_an_error_keeps_the_estimate_and_leaks_nothing(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = ChatOpenAI(model="sim", base_url="http://127.0.0.1:9", api_key="k", max_retries=0, rate_limiter=limiter)
    with pytest.raises(openai.APIConnectionError):
        model.invoke("How do I bake bread?")
    assert limiter.stats().open == 0
    assert limiter.stats().tokens_used > 0


def test_a_429_closes_the_gate_for_everyone() -> None:
    limiter = TokenRateLimiter(**PLENTY)
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        model = model_of(strict, limiter)
        model.invoke("the only one")
        with pytest.raises(openai.RateLimitError):
            model.invoke("one too many")
    stats = limiter.stats()
    assert (stats.throttled, stats.open) == (1, 0)
    assert not limiter.acquire(blocking=False)


def test_a_refused_call_is_charged_nothing() -> None:
    limiter = TokenRateLimiter(**PLENTY)
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        model = model_of(strict, limiter)
        answer = model.invoke("the only one")
        with pytest.raises(openai.RateLimitError):
            model.invoke("one too many")
    stats = limiter.stats()
    assert (stats.requests_used, stats.tokens_used) == (1, spent(answer))


def test_the_headers_of_an_answer_correct_a_limit_configured_too_high(limiter: TokenRateLimiter) -> None:
    limiter = TokenRateLimiter(tpm=100_000)
    with Simulator(SimulatorConfig(latency=0, tpm=50_000)) as strict:
        model_of(strict, limiter, include_response_headers=True).invoke("How do I bake bread?")
    assert limiter.stats().gauges["tokens"].share == pytest.approx(0.5)


def test_the_first_tokens_of_streams_steer_how_many_calls_go_at_once(provider: Simulator) -> None:
    limiter = TokenRateLimiter(concurrency=8)
    for _ in range(3):
        list(model_of(provider, limiter).stream("How do I bake bread?"))
    assert (limiter.stats().admitted, limiter.stats().open) == (3, 0)


def test_a_spent_budget_does_not_close_the_gate(limiter: TokenRateLimiter) -> None:
    limiter.limiter.observe(Feedback(200))
    assert limiter.acquire(blocking=False)


async def test_a_call_cancelled_while_waiting_gives_its_place_back(provider: Simulator) -> None:
    limiter = TokenRateLimiter(rpm=60, window=600, burst=0.001)
    model = model_of(provider, limiter)
    await model.ainvoke("first")
    waiting = asyncio.ensure_future(model.ainvoke("second"))
    while not limiter.stats().waiting:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    stats = limiter.stats()
    assert (stats.admitted, stats.waiting, stats.open) == (1, 0, 0)


async def test_a_call_cancelled_in_flight_is_settled(limiter: TokenRateLimiter) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        calling = asyncio.ensure_future(model_of(slow, limiter).ainvoke("How do I bake bread?"))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        assert limiter.stats().open == 1
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert limiter.stats().open == 0
    assert limiter.stats().tokens_used > 0


def test_a_stream_closed_early_is_settled(provider: Simulator, limiter: TokenRateLimiter) -> None:
    stream = model_of(provider, limiter).stream("How do I bake bread?")
    next(stream)
    assert limiter.stats().open == 1
    stream.close()
    assert limiter.stats().open == 0


def test_a_model_call_inside_a_tool_is_a_call_of_its_own(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter)

    @tool
    def ask_again(question: str) -> str:
        """Ask the model."""
        return str(model.invoke(question).content)

    model.invoke("outer")
    ask_again.invoke({"question": "inner"})
    assert (limiter.stats().admitted, limiter.stats().open) == (2, 0)


def test_a_call_that_would_wait_too_long_is_refused_with_the_wait(provider: Simulator) -> None:
    limiter = TokenRateLimiter(rpm=1, timeout=0.0)
    model = model_of(provider, limiter)
    model.invoke("the only one")
    with pytest.raises(LimitExceeded) as refused:
        model.invoke("one too many")
    assert refused.value.retry_after > 1
    assert limiter.stats().open == 0


def test_a_core_limiter_may_be_shared_but_not_configured_twice() -> None:
    core = TokenLimiter(rpm=60)
    assert TokenRateLimiter(limiter=core).limiter is core
    with pytest.raises(ConfigError, match="not both"):
        TokenRateLimiter(limiter=core, tpm=5)


async def test_a_worker_task_collects_no_callbacks(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = model_of(provider, limiter)

    async def worker() -> int:
        for _ in range(5):
            async for _ in model.astream("How do I bake bread?"):
                pass
        task: Any = asyncio.current_task()
        return len(task._callbacks or [])

    assert await asyncio.ensure_future(worker()) <= 1


def test_dispatch_keeps_the_class_and_the_cache_key(provider: Simulator) -> None:
    plain = model_of(provider, None)
    dispatched = dispatch(plain)
    assert isinstance(dispatched, ChatOpenAI)
    assert type(dispatched).__name__ == "ChatOpenAI"
    assert dispatched._get_llm_string() == plain._get_llm_string()
    assert dispatch(dispatched).with_config(tags=["t"]).invoke("hi").content == plain.invoke("hi").content


def test_with_config_limits_a_dispatched_model(provider: Simulator, limiter: TokenRateLimiter) -> None:
    model = dispatch(model_of(provider, None))
    limited = model.with_config(rate_limiter=limiter)
    limited.invoke("hi")
    limited.with_config(tags=["t"]).invoke("hi")
    limited.bind_tools([]).invoke("hi")
    assert limiter.stats().admitted == 3
    model.invoke("hi")
    assert limiter.stats().admitted == 3, "the model itself stays as it was"


def test_with_config_on_a_plain_model_limits_nothing(provider: Simulator, limiter: TokenRateLimiter) -> None:
    """What LangChain does by itself, and why `dispatch` exists."""
    model_of(provider, None).with_config(rate_limiter=limiter).invoke("hi")  # type: ignore[arg-type]
    assert limiter.stats().admitted == 0


def test_dispatch_takes_a_core_limiter_and_a_cache(provider: Simulator) -> None:
    core = TokenLimiter(**PLENTY)
    cache = SemanticCache()
    model = dispatch(model_of(provider, None), cache=cache, rate_limiter=core)
    model.invoke("How do I bake bread?")
    model.invoke("How do I bake bread?")
    assert core.stats().admitted == 1
    assert cache.stats().exact_hits == 1


def test_dispatch_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(TypeError, match="chat model"):
        dispatch("gpt-4")  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="rate_limiter"):
        dispatch(FakeListChatModel(responses=["a"]), rate_limiter=5)  # type: ignore[arg-type]


def test_images_and_tools_are_estimated(limiter: TokenRateLimiter) -> None:
    model = FakeListChatModel(responses=["a"], rate_limiter=limiter)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    model.invoke([HumanMessage([{"type": "text", "text": "what is this?"}, picture])])
    assert 800 <= limiter.stats().tokens_used < 2000
