"""Streams of a dispatched model: replayed as they came, stored only when they were read to their end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import tool
from langchain_models import QUESTION, Heard, Scripted, asked, left_nothing, model_of, streamed, summed
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import Field

from dispatch_core import ConfigError, LimitExceeded
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch


def texts(chunks: list[AIMessageChunk]) -> list[Any]:
    return [chunk.content for chunk in chunks]


async def test_a_stream_is_replayed_in_the_chunks_in_which_it_came(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    first = await streamed(model, form)
    again = await streamed(model, form)
    assert len(first) > 3
    assert texts(again) == texts(first)
    assert provider.stats().requests == limiter.stats().admitted == 1
    assert left_nothing(cache, limiter)


async def test_a_replay_costs_nothing_says_so_once_and_has_an_id_of_its_own(model: Any, form: str) -> None:
    first = await streamed(model, form)
    again = await streamed(model, form)
    assert summed(first).usage_metadata["total_tokens"] > 0  # type: ignore[index]
    assert summed(again).usage_metadata == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert summed(again).response_metadata["finish_reason"] == "stop"
    notes = [chunk.response_metadata.get("dispatch") for chunk in again]
    assert notes[0]["saved_usage"]["output_tokens"] > 0
    assert notes[1:] == [None] * len(notes[1:])
    assert {chunk.id for chunk in again}.isdisjoint({chunk.id for chunk in first})
    assert len({chunk.id for chunk in again}) == 1


async def test_one_entry_serves_stream_and_invoke(model: Any, form: str, provider: Simulator) -> None:
    text = summed(await streamed(model, form)).content
    assert (await asked(model, form)).content == text
    other = await asked(model, form, "Who wrote Hamlet?")
    assert texts(await streamed(model, form, "Who wrote Hamlet?")) == [other.content, ""]
    assert provider.stats().requests == 2


async def test_chunks_may_have_a_chosen_size(model: Any, form: str) -> None:
    text = summed(await streamed(model, form)).content
    sized = texts(await streamed(dispatch(model, stream_chunk=10), form))
    assert "".join(sized) == text
    assert {len(piece) for piece in sized[:-2]} == {10}


@pytest.mark.parametrize("size", [0, -1, "5"])
def test_a_chunk_size_that_makes_no_sense_is_refused(model: Any, size: Any) -> None:
    with pytest.raises(ConfigError, match="stream_chunk"):
        dispatch(model, stream_chunk=size)


async def test_a_stream_that_was_closed_early_is_not_stored(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    if form == "async":
        live = model.astream(QUESTION)
        await anext(live)
        await live.aclose()
    else:
        live = model.stream(QUESTION)
        next(live)
        live.close()
    assert left_nothing(cache, limiter)
    assert len(await streamed(model, form)) > 3
    assert provider.stats().requests == 2


async def test_a_stream_whose_reader_was_cancelled_is_not_stored(
    cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        model = dispatch(model_of(slow), cache=cache, rate_limiter=limiter)
        reading = asyncio.ensure_future(streamed(model, "async"))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert left_nothing(cache, limiter)
    assert cache.stats().stored == 0


async def test_a_stream_that_failed_midway_is_not_stored(
    form: str, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    plain = Scripted(failures=[ConnectionError("gone")])
    model = dispatch(plain, cache=cache, rate_limiter=limiter)
    with pytest.raises(ConnectionError):
        await streamed(model, form)
    assert left_nothing(cache, limiter)
    assert summed(await streamed(model, form)).content == "answer 2"
    assert summed(await streamed(model, form)).content == "answer 2"


async def test_a_stream_that_was_cut_off_is_not_stored(model: Any, form: str, provider: Simulator) -> None:
    for _ in range(2):
        assert summed(await streamed(model.bind(max_tokens=5), form)).response_metadata["finish_reason"] == "length"
    assert provider.stats().requests == 2


class Chunks(FakeListChatModel):
    """Streams the given chunks."""

    responses: list[str] = Field(default_factory=list)
    chunks: list[AIMessageChunk]
    calls: list[int]

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("whole"))])

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self.calls.append(1)
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk.model_copy())

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        for chunk in self._stream():
            yield chunk


async def test_a_stream_that_broke_off_without_an_error_is_not_stored(form: str, cache: SemanticCache) -> None:
    plain = Chunks(chunks=[AIMessageChunk("half an", response_metadata={"model_provider": "openai"})], calls=[])
    model = dispatch(plain, cache=cache)
    for _ in range(2):
        await streamed(model, form)
    assert len(plain.calls) == 2
    assert left_nothing(cache)


async def test_reasoning_comes_again_as_it_came(form: str, cache: SemanticCache) -> None:
    blocks = [
        [{"type": "reasoning", "reasoning": "Flour ", "index": 0}],
        [{"type": "reasoning", "reasoning": "first.", "index": 0}],
        [{"type": "text", "text": "Mix.", "index": 1}],
    ]
    plain = Chunks(chunks=[AIMessageChunk(block) for block in blocks], calls=[])  # type: ignore[arg-type]
    model = dispatch(plain, cache=cache)
    first, again = await streamed(model, form), await streamed(model, form)
    assert texts(again) == texts(first)
    assert summed(again).content == summed(first).content
    assert len(plain.calls) == 1


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def test_tool_calls_come_again_with_ids_of_their_own(model: Any, form: str, provider: Simulator) -> None:
    bound = model.bind_tools([weather], tool_choice="weather")
    first, again = summed(await streamed(bound, form)), summed(await streamed(bound, form))
    invoked = await asked(bound, form)
    calls = [message.tool_calls[0] for message in (first, again, invoked)]
    assert [(call["name"], call["args"]) for call in calls] == [(calls[0]["name"], calls[0]["args"])] * 3
    assert len({call["id"] for call in calls}) == 3
    assert provider.stats().requests == 1


async def test_listeners_hear_of_a_replay_what_they_hear_of_a_stream(
    model: Any, form: str, provider: Simulator
) -> None:
    plain, live, replayed = Heard(), Heard(), Heard()
    await streamed(model_of(provider), form, config={"callbacks": [plain]})
    for heard in (live, replayed):
        await streamed(model, form, config={"callbacks": [heard]})
    assert plain.events == live.events == replayed.events == ["start", "tokens", "end"]
    assert plain.tokens == live.tokens == replayed.tokens
    assert plain.answers == live.answers == replayed.answers


@pytest.mark.parametrize("name", ["of a provider", "without a last chunk"])
async def test_a_replay_is_the_same_whether_somebody_listens_or_not(
    name: str, model: Any, form: str, cache: SemanticCache
) -> None:
    asked_of = model if name == "of a provider" else dispatch(FakeListChatModel(responses=["abc"]), cache=cache)
    await streamed(asked_of, form)

    async def replayed(**config: Any) -> list[Any]:
        run_id = uuid4()
        chunks = await streamed(asked_of, form, config={"run_id": run_id, **config})
        assert {chunk.id for chunk in chunks} == {f"lc_run--{run_id}"}
        for chunk in chunks:
            chunk.id = None
            chunk.response_metadata.get("dispatch", {}).pop("hit_id", None)
        return chunks

    assert await replayed() == await replayed(callbacks=[Heard()])


async def test_events_of_a_chain_are_the_same_for_a_replay(model: Any, cache: SemanticCache) -> None:
    chain = ChatPromptTemplate.from_messages([("human", "{asked}")]) | model | StrOutputParser()
    asked_twice = [chain.astream_events({"asked": QUESTION}, version="v2") for _ in range(2)]
    told = [[event["event"] async for event in events] for events in asked_twice]
    assert told[0] == told[1]
    assert told[0].count("on_chat_model_stream") > 3
    assert cache.stats().exact_hits == 1


async def test_a_model_that_is_invoked_in_a_graph_streams_its_replay_to_those_who_listen(
    model: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", anode if form == "async" else node)  # type: ignore[type-var]
    builder.add_edge(START, "ask")
    graph = builder.compile(checkpointer=InMemorySaver())
    heard = []
    for thread in ("one", "two"):
        given: dict[str, Any] = {"config": {"configurable": {"thread_id": thread}}, "stream_mode": "messages"}
        question: Any = {"messages": [("human", QUESTION)]}
        if form == "async":
            parts = [message.text async for message, _ in graph.astream(question, **given)]
        else:
            parts = [message.text for message, _ in graph.stream(question, **given)]
        heard.append([part for part in parts if part])
    assert heard[0] == heard[1]
    assert len(heard[0]) > 3
    assert provider.stats().requests == 1
    assert left_nothing(cache)


async def test_a_conversation_in_a_checkpointed_graph_keeps_every_turn(model: Any, provider: Simulator) -> None:
    builder = StateGraph(MessagesState)
    builder.add_node("ask", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_edge(START, "ask")
    graph = builder.compile(checkpointer=InMemorySaver())
    for thread in ("one", "two"):
        config: Any = {"configurable": {"thread_id": thread}}
        for question in (QUESTION, "And without yeast?", QUESTION):
            state: Any = graph.invoke({"messages": [("human", question)]}, config)
        assert [message.type for message in state["messages"]] == ["human", "ai"] * 3
    assert provider.stats().requests == 3


async def test_the_global_cache_serves_the_streams_of_a_dispatched_model(
    form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    set_llm_cache(cache)
    try:
        model = dispatch(model_of(provider))
        for _ in range(2):
            await streamed(model, form)
        await streamed(dispatch(model_of(provider), cache=False), form)
    finally:
        set_llm_cache(None)
    assert provider.stats().requests == 2


async def test_a_limiter_of_langchain_is_not_asked_for_a_replay(form: str, cache: SemanticCache) -> None:
    asked_for = []

    class Counting(InMemoryRateLimiter):
        def acquire(self, *, blocking: bool = True) -> bool:
            asked_for.append(1)
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire()

    model = dispatch(Scripted(), cache=cache, rate_limiter=Counting())
    for _ in range(3):
        await streamed(model, form)
    assert len(asked_for) == 1


async def test_a_stream_that_is_refused_by_the_limiter_leaves_nothing(
    form: str, provider: Simulator, cache: SemanticCache
) -> None:
    strict = TokenRateLimiter(rpm=1, timeout=0.0)
    model = dispatch(model_of(provider), cache=cache, rate_limiter=strict)
    await streamed(model, form)
    with pytest.raises(LimitExceeded):
        await streamed(model, form, "Who wrote Hamlet?")
    assert left_nothing(cache, strict)


async def test_a_model_that_cannot_stream_is_cached_all_the_same(form: str, cache: SemanticCache) -> None:
    plain = Scripted(disable_streaming=True)
    model = dispatch(plain, cache=cache)
    assert [texts(await streamed(model, form)) for _ in range(2)] == [["answer 1"]] * 2


async def test_a_stream_of_content_blocks_comes_again_as_it_came(
    form: str, provider: Simulator, cache: SemanticCache
) -> None:
    model = dispatch(model_of(provider, output_version="v1"), cache=cache)
    first, again = await streamed(model, form), await streamed(model, form)
    assert cache.stats().exact_hits == 1
    assert texts(again) == texts(first)
    assert summed(again).content_blocks == summed(first).content_blocks
