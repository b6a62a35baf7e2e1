"""`stream_events` of version 3: through the cache and the limiter, one entry for it, `stream` and `invoke`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_models import PLENTY, QUESTION, Heard, Scripted, asked, left_nothing, model_of, streamed, summed
from langgraph.graph import START, MessagesState, StateGraph

from dispatch_core import LimitExceeded
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import RetryPolicy, SemanticCache, TokenRateLimiter, dispatch

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
if not hasattr(BaseChatModel, "stream_events"):
    pytest.skip("releases of LangChain before 1.4 have no events of version 3", allow_module_level=True)


async def told(model: Any, form: str, question: Any = QUESTION, **kwargs: Any) -> tuple[list[Any], AIMessage]:
    """The events of a call, and the message that they come to."""
    if form == "sync":
        stream = model.stream_events(question, version="v3", **kwargs)
        return list(stream), stream.output
    stream = await model.astream_events(question, version="v3", **kwargs)
    async with stream:
        return [event async for event in stream], await stream.output


def names(events: list[Any]) -> list[str]:
    return [event["event"] for event in events]


async def test_events_are_replayed_in_the_pieces_in_which_they_came(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    (first, message), (again, replayed) = await told(model, form), await told(model, form)
    assert names(again) == names(first)
    assert len(first) > 5
    assert replayed.content == message.content
    assert replayed.id != message.id
    assert replayed.response_metadata["dispatch"]["cache_hit"] == "exact"
    assert replayed.usage_metadata == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert provider.stats().requests == limiter.stats().admitted == 1
    assert left_nothing(cache, limiter)


async def test_they_are_those_of_the_plain_model(model: Any, form: str, provider: Simulator) -> None:
    plain, live, replayed = Heard(), Heard(), Heard()
    events, _ = await told(model_of(provider), form, config={"callbacks": [plain]})
    for heard in (live, replayed):
        assert names((await told(model, form, config={"callbacks": [heard]}))[0]) == names(events)
    assert plain.events == live.events == replayed.events == ["start", "tokens", "end"]
    assert plain.tokens == live.tokens == replayed.tokens


@pytest.mark.parametrize("version", [None, "v1"])
async def test_one_entry_serves_events_streams_and_invokes(
    version: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    model = dispatch(model_of(provider, output_version=version), cache=cache)
    plain = await asked(model_of(provider, output_version=version, cache=False), form)
    _, message = await told(model, form)
    assert (await asked(model, form)).content == plain.content
    assert summed(await streamed(model, form)).text == message.text == plain.text
    other = await asked(model, form, "Who wrote Hamlet?")
    assert (await told(model, form, "Who wrote Hamlet?"))[1].text == other.text
    assert provider.stats().requests == 3


async def test_tool_calls_come_again_with_ids_of_their_own(model: Any, form: str, provider: Simulator) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    bound = model.bind_tools([weather], tool_choice="weather")
    calls = [(await told(bound, form))[1].tool_calls[0] for _ in range(2)]
    assert calls[0]["args"] == calls[1]["args"]
    assert calls[0]["id"] != calls[1]["id"]
    assert provider.stats().requests == 1


async def test_a_limiter_of_the_config_is_asked_once_and_not_for_a_replay(form: str, cache: SemanticCache) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    model: Any = dispatch(Scripted(), cache=cache)
    for _ in range(2):
        await told(model.with_config(rate_limiter=limiter, tags=["t"]), form)
    assert (limiter.stats().admitted, limiter.stats().open) == (1, 0)


async def test_without_a_cache_the_limiter_is_asked_all_the_same(form: str) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    model = dispatch(FakeListChatModel(responses=["a", "b"]), rate_limiter=limiter)
    assert [(await told(model, form))[1].text for _ in range(2)] == ["a", "b"]
    assert (limiter.stats().admitted, limiter.stats().open) == (2, 0)


async def test_what_the_limiter_refuses_leaves_nothing(form: str, cache: SemanticCache) -> None:
    strict = TokenRateLimiter(rpm=1, timeout=0.0)
    model = dispatch(Scripted(), cache=cache, rate_limiter=strict)
    await told(model, form)
    heard = Heard()
    with pytest.raises(LimitExceeded):
        await told(model, form, "Who wrote Hamlet?", config={"callbacks": [heard]})
    assert heard.events == ["start", "error"]
    assert left_nothing(cache, strict)


async def test_what_failed_midway_is_not_stored_and_retried_only_before_its_first_chunk(
    form: str, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    async def nothing(seconds: float) -> None:
        """No wait."""

    policy = RetryPolicy(sleep=lambda seconds: None, asleep=nothing)
    model = dispatch(Scripted(failures=[ConnectionError("gone")]), cache=cache, rate_limiter=limiter, retries=policy)
    with pytest.raises(ConnectionError):
        await told(model, form)
    assert left_nothing(cache, limiter)
    assert (await told(model, form))[1].text == "answer 2"
    assert cache.stats().stored == 1


def test_a_reader_who_goes_away_leaves_nothing(model: Any, cache: SemanticCache, limiter: TokenRateLimiter) -> None:
    stream = model.stream_events(QUESTION, version="v3")
    next(iter(stream))
    assert limiter.stats().open == 1
    del stream
    gc.collect()
    assert left_nothing(cache, limiter)
    assert cache.stats().stored == 0


async def test_a_reader_who_is_cancelled_leaves_nothing(cache: SemanticCache, limiter: TokenRateLimiter) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        model = dispatch(model_of(slow), cache=cache, rate_limiter=limiter)
        reading = asyncio.ensure_future(told(model, "async"))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert left_nothing(cache, limiter)
    assert cache.stats().stored == 0


async def test_who_is_in_the_middle_of_the_same_question_does_not_wait_for_himself(
    cache: SemanticCache, provider: Simulator
) -> None:
    model = dispatch(model_of(provider), cache=cache)
    live = model.astream(QUESTION)
    await anext(live)
    async with asyncio.timeout(30):
        assert (await told(model, "async"))[1].text
    await live.aclose()  # type: ignore[attr-defined]
    assert left_nothing(cache)


async def test_a_graph_that_streams_events_leaves_an_entry_that_serves_all(
    model: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", anode if form == "async" else node)  # type: ignore[type-var]
    builder.add_edge(START, "ask")
    graph: Any = builder.compile()
    heard = []
    for _ in range(2):
        question = {"messages": [("human", QUESTION)]}
        if form == "async":
            run = await graph.astream_events(question, version="v3")
            heard.append(["".join([piece async for piece in message.text]) async for message in run.messages])
        else:
            run = graph.stream_events(question, version="v3")
            heard.append(["".join(message.text) for message in run.messages])
    assert heard[0] == heard[1] != []
    again = await asked(model, form)
    assert again.content == heard[0][0], "text, as the model itself says it"
    assert provider.stats().requests == 1
    assert left_nothing(cache)
