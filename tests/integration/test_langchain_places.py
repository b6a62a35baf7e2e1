"""A dispatched model wherever LangChain puts one: bound, wrapped, configured, in agents, copied and pickled."""

from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.runnables import ConfigurableField, RunnableParallel
from langchain_core.tools import tool
from langchain_models import PLENTY, QUESTION, Heard, Scripted, asked, left_nothing, model_of, streamed, summed
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from dispatch_core.simulate import Simulator
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def test_a_model_made_by_name_is_dispatched_like_any_other(
    form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    made = init_chat_model("sim", model_provider="openai", base_url=provider.url, api_key="k", max_retries=0)
    model = dispatch(made, cache=cache)
    assert isinstance(model, ChatOpenAI)
    assert (await asked(model, form)).content == summed(await streamed(model, form)).content
    assert provider.stats().requests == 1


async def test_an_agent_asks_each_of_its_questions_once(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    agent = create_agent(model, tools=[weather], checkpointer=InMemorySaver())
    turns = []
    for thread in ("one", "two"):
        state = await asked(
            agent,
            form,
            {"messages": [("human", "Weather in Ghent?")]},
            config={"configurable": {"thread_id": thread}},
        )
        turns.append([message.content for message in state["messages"]])
    assert turns[0] == turns[1]
    assert provider.stats().requests == limiter.stats().admitted
    assert cache.stats().hits >= 1
    assert left_nothing(cache, limiter)


async def test_wrappers_keep_cache_and_limiter(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    other = FakeListChatModel(responses=["another"])
    alternatives = model.configurable_alternatives(ConfigurableField(id="llm"), other=other)
    wrapped = {
        "retry": model.with_retry(stop_after_attempt=2),
        "fallbacks": model.with_fallbacks([other]),
        "alternatives": alternatives,
        "fields": model.configurable_fields(temperature=ConfigurableField(id="t")),
        "config": model.with_config(tags=["t"]),
        "parallel": RunnableParallel(a=model, b=model),
        "limiter": model.with_config(rate_limiter=limiter),
    }
    for runnable in wrapped.values():
        await asked(runnable, form)
    assert provider.stats().requests == limiter.stats().admitted == 1
    await asked(model.bind_tools([weather]), form)
    assert provider.stats().requests == limiter.stats().admitted == 2
    assert (await asked(alternatives.with_config(configurable={"llm": "other"}), form)).content == "another"
    assert left_nothing(cache, limiter)


async def test_a_retry_asks_again_and_the_answer_is_stored(form: str, cache: SemanticCache) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    plain = Scripted(failures=[ConnectionError("gone")])
    model = dispatch(plain, cache=cache, rate_limiter=limiter)
    retrying = model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert (await asked(retrying, form)).content == "answer 2"
    assert (await asked(model, form)).content == "answer 2"
    assert limiter.stats().admitted == 2
    assert left_nothing(cache, limiter)


async def test_a_fallback_takes_over_when_the_provider_is_gone(form: str, cache: SemanticCache) -> None:
    gone = ChatOpenAI(model="m", base_url="http://127.0.0.1:9", api_key="k", max_retries=0)
    limiter = TokenRateLimiter(**PLENTY)
    model = dispatch(gone, cache=cache, rate_limiter=limiter)
    safe = model.with_fallbacks([dispatch(Scripted(), cache=cache)])
    assert (await asked(safe, form)).content == "answer 1"
    assert summed(await streamed(safe, form)).content == "answer 1"
    with pytest.raises(openai.APIConnectionError):
        await streamed(model, form)
    assert left_nothing(cache, limiter)


async def test_a_model_called_within_a_tool_is_a_call_of_its_own(
    model: Any, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    @tool
    async def ask_again(question: str) -> str:
        """Ask the model."""
        return str((await model.ainvoke(question)).content)

    for _ in range(2):
        await model.ainvoke("outer")
        await ask_again.ainvoke({"question": "inner"})
    assert provider.stats().requests == limiter.stats().admitted == 2
    assert left_nothing(cache, limiter)


def test_a_blocking_call_inside_a_running_loop_works(model: Any, provider: Simulator, cache: SemanticCache) -> None:
    async def notebook() -> str:
        waits = asyncio.ensure_future(model.ainvoke(QUESTION))
        await asyncio.sleep(0)
        blocking = model.invoke(QUESTION).content
        return str(blocking) if blocking == (await waits).content else ""

    assert asyncio.run(notebook())
    assert left_nothing(cache)


@pytest.mark.parametrize("call", ["invoke", "stream"])
async def test_tracers_hear_of_a_dispatched_model_what_they_hear_of_a_plain_one(
    call: str, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    plain = model_of(provider)
    heard = {}
    for name, one in {"plain": plain, "miss": dispatch(plain, cache=cache, rate_limiter=limiter)}.items():
        heard[name] = Heard()
        config = {"callbacks": [heard[name]]}
        await (asked(one, form, config=config) if call == "invoke" else streamed(one, form, config=config))
    assert heard["plain"].events == heard["miss"].events
    assert heard["plain"].answers == heard["miss"].answers
    gone = ChatOpenAI(model="m", base_url="http://127.0.0.1:9", api_key="k", max_retries=0)
    failed = Heard()
    with pytest.raises(openai.APIConnectionError):
        await asked(dispatch(gone, cache=cache, rate_limiter=limiter), form, config={"callbacks": [failed]})
    assert failed.events == ["start", "error"]
    assert left_nothing(cache, limiter)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
async def test_copies_share_cache_and_limiter(copied: Any, form: str, cache: SemanticCache) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    plain = FakeListChatModel(responses=["first", "second"])
    model = dispatch(plain, cache=cache, rate_limiter=limiter, stream_chunk=2)
    twin = copied(model)
    assert type(twin) is type(model)
    assert (twin.cache, twin.rate_limiter) == (cache, limiter)
    assert (await asked(model, form)).content == "first"
    assert [chunk.content for chunk in await streamed(twin, form)] == ["fi", "rs", "t", ""]
    assert limiter.stats().admitted == 1


def test_what_was_pickled_loses_cache_and_limiter_elsewhere_and_says_so(
    cache: SemanticCache, caplog: pytest.LogCaptureFixture
) -> None:
    pickled = pickle.dumps(dispatch(FakeListChatModel(responses=["first"]), cache=cache))
    foreign = pickled.replace(cache._handle.encode(), b"0" * 32)
    model = pickle.loads(foreign)  # noqa: S301
    assert model.cache is None
    assert model.invoke("q").content == "first"
    assert "lost its cache" in caplog.text


def test_dispatching_twice_adds_nothing(cache: SemanticCache) -> None:
    once = dispatch(FakeListChatModel(responses=["a"]), cache=cache, stream_chunk=3)
    twice = dispatch(once)
    assert type(twice) is type(once)
    assert twice.cache is cache


def test_a_completion_model_gets_the_cache_and_no_limiter(cache: SemanticCache, limiter: TokenRateLimiter) -> None:
    model = dispatch(FakeListLLM(responses=["first", "second"]), cache=cache)
    assert model.invoke(QUESTION) == "first"
    assert model.invoke("how do I bake bread") == "first"
    with pytest.raises(TypeError, match="completion model"):
        dispatch(model, rate_limiter=limiter)
