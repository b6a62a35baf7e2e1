"""Equal questions asked at the same moment through LangChain are one call, and whoever fails frees the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flights import until
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.runnables import RunnableParallel
from langchain_models import QUESTION, Scripted, asked, left_nothing, model_of, streamed, summed, waiting

from dispatch_core import HashingEmbedder, LimitExceeded, Threshold, flights
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch

Using = Callable[[Any, SemanticCache], Any]


@pytest.fixture
def cache() -> SemanticCache:
    return SemanticCache(embedder=HashingEmbedder(), policy=Threshold(0.5))


@pytest.fixture(params=["dispatch", "global cache", "cache of the model"])
def using(request: pytest.FixtureRequest) -> Iterator[Using]:
    """The ways in which a model comes to a cache."""

    def used(model: Any, cache: SemanticCache) -> Any:
        if request.param == "dispatch":
            return dispatch(model, cache=cache)
        if request.param == "global cache":
            set_llm_cache(cache)
            return model
        return model.model_copy(update={"cache": cache})

    yield used
    set_llm_cache(None)


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(call) for call in calls]]


async def test_equal_questions_in_tasks_are_one_call(
    provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter, using: Using
) -> None:
    provider.reset()
    model = using(model_of(provider, rate_limiter=limiter), cache)
    answers = await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(8)))
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.id for answer in answers}) == 8
    assert provider.stats().requests == limiter.stats().admitted == 1
    assert cache.stats().shared == 7
    assert left_nothing(cache, limiter)


async def test_who_reads_a_stream_may_ask_the_same_meanwhile(
    provider: Simulator, cache: SemanticCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.reset()
    monkeypatch.setattr(flights, "READING", 0.01)
    model = dispatch(model_of(provider), cache=cache)
    async for _ in model.astream(QUESTION):
        one, other = await asyncio.gather(model.ainvoke(QUESTION), model.ainvoke(QUESTION))
        assert one.content == other.content
    assert provider.stats().requests == 2
    assert left_nothing(cache)


def test_equal_questions_in_threads_are_one_call(cache: SemanticCache, using: Using) -> None:
    plain = Scripted(before=lambda: until(lambda: waiting(cache) == 3))
    model = using(plain, cache)
    answers = in_threads([lambda: model.invoke(QUESTION).content] * 4)
    assert answers == ["answer 1"] * 4
    assert left_nothing(cache)


async def test_batches_and_parallels_ask_once(
    provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter, using: Using
) -> None:
    provider.reset()
    model = using(model_of(provider, rate_limiter=limiter), cache)
    await model.abatch([QUESTION] * 4)
    await model.agenerate([[HumanMessage("Who wrote Hamlet?")]] * 3)
    await RunnableParallel(a=model, b=model).ainvoke("What is a bond?")
    assert provider.stats().requests == 3
    assert left_nothing(cache, limiter)


async def test_other_words_wait_for_the_answer_too(cache: SemanticCache, using: Using) -> None:
    gate = threading.Event()
    plain = Scripted(before=lambda: gate.wait(60))
    model = using(plain, cache)
    first = asyncio.ensure_future(model.ainvoke("How do I reset my password"))
    while not plain.calls:
        await asyncio.sleep(0.001)
    others = [asyncio.ensure_future(model.ainvoke(f"How do I reset my password {n}")) for n in (1, 2)]
    while waiting(cache) < 2:
        await asyncio.sleep(0.001)
    gate.set()
    answers = await asyncio.gather(first, *others)
    assert [answer.content for answer in answers] == ["answer 1"] * 3
    assert left_nothing(cache)


def test_streams_and_invocations_share_one_flight(cache: SemanticCache) -> None:
    plain = Scripted(before=lambda: until(lambda: waiting(cache) == 2))
    model = dispatch(plain, cache=cache)
    streams = [lambda: summed(list(model.stream(QUESTION))).content] * 2
    assert in_threads([*streams, lambda: model.invoke(QUESTION).content]) == ["answer 1"] * 3
    assert left_nothing(cache)


def test_the_failure_of_the_first_wakes_the_next(cache: SemanticCache, using: Using) -> None:
    failed = threading.Event()

    def before() -> None:
        if not failed.is_set():
            until(lambda: waiting(cache) == 2)
            failed.set()

    plain = Scripted(before=before, failures=[ConnectionError("gone")])
    model = using(plain, cache)

    def ask() -> str:
        try:
            return str(model.invoke(QUESTION).content)
        except ConnectionError:
            return "failed"

    assert sorted(in_threads([ask] * 3)) == ["answer 2", "answer 2", "failed"]
    assert left_nothing(cache)


async def test_one_who_is_cancelled_frees_those_who_wait(
    cache: SemanticCache, limiter: TokenRateLimiter, using: Using
) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        model = using(model_of(slow, rate_limiter=limiter), cache)
        first = asyncio.ensure_future(model.ainvoke(QUESTION))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(model.ainvoke(QUESTION))
        while not waiting(cache):
            await asyncio.sleep(0.001)
        first.cancel()
        while slow.stats().requests < 2:
            await asyncio.sleep(0.001)
        second.cancel()
        for one in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await one
    assert left_nothing(cache, limiter)


async def test_one_who_is_cancelled_alone_leaves_nothing(cache: SemanticCache, using: Using) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        asking = asyncio.ensure_future(using(model_of(slow), cache).ainvoke(QUESTION))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        assert not left_nothing(cache)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert left_nothing(cache)


async def test_one_who_is_refused_by_the_limiter_leaves_nothing(
    provider: Simulator, cache: SemanticCache, form: str, using: Using
) -> None:
    strict = TokenRateLimiter(rpm=1, timeout=0.0)
    model = using(model_of(provider, rate_limiter=strict), cache)
    await asked(model, form)
    with pytest.raises(LimitExceeded):
        await asked(model, form, "Who wrote Hamlet?")
    assert left_nothing(cache, strict)


async def test_a_stream_that_is_closed_frees_those_who_wait(cache: SemanticCache) -> None:
    plain = Scripted()
    model = dispatch(plain, cache=cache)
    live = model.stream(QUESTION)
    next(live)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(model.invoke, QUESTION)
        until(lambda: waiting(cache) == 1)
        live.close()  # type: ignore[attr-defined]
        assert waits.result(60).content == "answer 2"
    assert left_nothing(cache)


async def test_one_who_asks_again_within_his_own_stream_does_not_wait_for_himself(
    cache: SemanticCache, form: str
) -> None:
    model = dispatch(Scripted(), cache=cache)
    if form == "async":
        texts = [(chunk.content, (await model.ainvoke(QUESTION)).content) async for chunk in model.astream(QUESTION)]
    else:
        texts = [(chunk.content, model.invoke(QUESTION).content) for chunk in model.stream(QUESTION)]
    assert texts[0] == ("ans", "answer 2")
    assert left_nothing(cache)


def test_nobody_waits_for_a_lookup_whose_end_nobody_would_tell(cache: SemanticCache) -> None:
    """Completion models are looked up before they are announced, and anybody may look up by hand."""
    completion = FakeListLLM(responses=["first", "second"], cache=cache)
    assert cache.lookup("a prompt", "a model") is None
    assert cache.lookup("a prompt", "a model") is None
    cache.update("a prompt", "a model", [ChatGeneration(message=AIMessage("by hand"))])
    assert completion.invoke(QUESTION) == "first"
    assert completion.invoke(QUESTION) == "first"
    assert left_nothing(cache)


def test_a_lookup_by_hand_in_the_context_of_a_call_is_not_taken_for_that_call(cache: SemanticCache) -> None:
    looked: list[Any] = []
    plain = Scripted(before=lambda: looked.append(cache.lookup("[]", "a model")))
    plain.invoke(QUESTION)
    assert looked == [None]
    assert left_nothing(cache)


async def test_flights_can_be_switched_off(provider: Simulator, using: Using) -> None:
    provider.reset()
    each = SemanticCache(embedder=HashingEmbedder(), single_flight=False)
    model = using(model_of(provider), each)
    await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(3)))
    assert provider.stats().requests == 3


async def test_a_worker_task_collects_no_callbacks_of_its_questions(cache: SemanticCache, using: Using) -> None:
    model = using(Scripted(), cache)

    async def worker() -> int:
        for number in range(5):
            await model.ainvoke(f"What is {number} in Roman numerals?")
            await streamed(model, "async", f"What is {number} in words?")
        task: Any = asyncio.current_task()
        return len(task._callbacks or [])

    assert await asyncio.ensure_future(worker()) <= 1
