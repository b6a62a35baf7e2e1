"""Equal questions asked of a `DispatchLLM` at the same moment are one call, and whoever fails frees the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flights import until
from llamaindex_models import FORMS, Ask, Gated, achat, close_clients, hit, openai_at, user

from dispatch_core import Dispatcher, HashingEmbedder, MemoryStore, SemanticCache, Threshold, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM

QUESTION = "How do I pay?"


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher(
        SemanticCache(HashingEmbedder(), MemoryStore(), policy=Threshold(0.5)), TokenLimiter(rpm=6000, burst=60)
    )


def waiting(dispatcher: Dispatcher) -> int:
    return sum(len(flight.waiting) for flight in list(dispatcher._flights._table.values()))


def left_nothing(dispatcher: Dispatcher) -> bool:
    return not dispatcher._flights._table and not dispatcher.limiter.stats().open  # type: ignore[union-attr]


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(call) for call in calls]]


async def test_equal_questions_in_tasks_are_one_call(sim: Simulator, dispatcher: Dispatcher) -> None:
    llm = DispatchLLM(openai_at(sim.url), cache=dispatcher)
    answers = await asyncio.gather(*(achat(llm, QUESTION) for _ in range(8)))
    assert len({answer.message.content for answer in answers}) == 1
    assert sorted(str(hit(answer)) for answer in answers) == ["None", *["flight"] * 7]
    assert sim.stats().requests == 1
    assert dispatcher.stats().shared == 7
    assert left_nothing(dispatcher)


def test_equal_questions_in_threads_are_one_call_whole_or_streamed(dispatcher: Dispatcher) -> None:
    llm = DispatchLLM(Gated.made(lambda: until(lambda: waiting(dispatcher) == 3)), cache=dispatcher)

    def whole() -> Any:
        return llm.chat(user(QUESTION)).message.content

    def streamed() -> Any:
        return list(llm.stream_chat(user(QUESTION)))[-1].message.content

    assert in_threads([whole, streamed, whole, streamed]) == ["answer 1"] * 4
    assert left_nothing(dispatcher)


async def test_other_words_wait_for_the_answer_too(dispatcher: Dispatcher) -> None:
    gate = threading.Event()
    inner = Gated.made(lambda: gate.wait(60) and None)
    llm = DispatchLLM(inner, cache=dispatcher)
    first = asyncio.ensure_future(llm.acomplete("How do I reset my password"))
    while not inner.asked:
        await asyncio.sleep(0.001)
    others = [asyncio.ensure_future(llm.acomplete(f"How do I reset my password {n}")) for n in (1, 2)]
    while waiting(dispatcher) < 2:
        await asyncio.sleep(0.001)
    gate.set()
    assert [answer.text for answer in await asyncio.gather(first, *others)] == ["answer 1"] * 3
    assert left_nothing(dispatcher)


def test_the_failure_of_the_first_wakes_the_next(dispatcher: Dispatcher) -> None:
    failed = threading.Event()

    def before() -> None:
        if not failed.is_set():
            until(lambda: waiting(dispatcher) == 2)
            failed.set()

    llm = DispatchLLM(Gated.made(before, [ConnectionError("gone")]), cache=dispatcher)

    def ask() -> str:
        try:
            return llm.complete(QUESTION).text
        except ConnectionError:
            return "failed"

    assert sorted(in_threads([ask] * 3)) == ["answer 2", "answer 2", "failed"]
    assert left_nothing(dispatcher)


def test_a_stream_that_is_closed_frees_those_who_wait(dispatcher: Dispatcher) -> None:
    llm = DispatchLLM(Gated.made(), cache=dispatcher)
    live = llm.stream_complete(QUESTION)
    next(live)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(llm.complete, QUESTION)
        until(lambda: waiting(dispatcher) == 1)
        live.close()
        assert waits.result(60).text == "answer 2"
    assert left_nothing(dispatcher)


async def test_a_call_that_is_cancelled_frees_those_who_wait(dispatcher: Dispatcher) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        llm = DispatchLLM(openai_at(slow.url), cache=dispatcher)
        first = asyncio.ensure_future(achat(llm, QUESTION))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(achat(llm, QUESTION))
        while not waiting(dispatcher):
            await asyncio.sleep(0.001)
        first.cancel()
        while slow.stats().requests < 2:
            await asyncio.sleep(0.001)
        second.cancel()
        for one in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await one
    assert left_nothing(dispatcher)


@pytest.mark.parametrize("ask", FORMS)
async def test_one_who_asks_again_within_his_own_stream_does_not_wait_for_himself(
    dispatcher: Dispatcher, ask: Ask
) -> None:
    llm = DispatchLLM(Gated.made(), cache=dispatcher)
    if ask.__name__.endswith("chat"):
        async for _ in await llm.astream_chat(user(QUESTION)):
            await ask(llm, QUESTION)
        for _ in llm.stream_chat(user("And where?")):
            await ask(llm, "And where?")
    else:
        async for _ in await llm.astream_complete(QUESTION):
            await ask(llm, QUESTION)
        for _ in llm.stream_complete("And where?"):
            await ask(llm, "And where?")
    assert left_nothing(dispatcher)


async def test_a_call_that_goes_past_the_cache_shares_nothing(sim: Simulator, dispatcher: Dispatcher) -> None:
    llm = DispatchLLM(openai_at(sim.url), cache=dispatcher)
    with llm.bypass_cache():
        await asyncio.gather(*(achat(llm, QUESTION) for _ in range(3)))
    assert sim.stats().requests == 3
