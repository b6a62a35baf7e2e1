"""Keys that survive a hit: conversations, tool calls, structured output, through a cache and `dispatch`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from fakes import Clock, CountingEmbedder
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_models import PLENTY, QUESTION, Heard, Scripted, asked, left_nothing, model_of, streamed, summed
from pydantic import BaseModel, ConfigDict, create_model

from dispatch_core import Lifetime
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch
from langchain_dispatch.query import prompt_of, query_of

Using = Callable[[Any, SemanticCache], Any]
METHODS = ["json_schema", "function_calling", "json_mode"]


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def cache(embedder: CountingEmbedder) -> SemanticCache:
    return SemanticCache(embedder=embedder)


@pytest.fixture(params=["dispatch", "cache of the model"])
def model(request: pytest.FixtureRequest, provider: Simulator, cache: SemanticCache) -> Any:
    provider.reset()
    plain = model_of(provider)
    return dispatch(plain, cache=cache) if request.param == "dispatch" else plain.model_copy(update={"cache": cache})


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


async def talk(model: Any, form: str) -> list[BaseMessage]:
    """A conversation with a tool call in it."""
    bound = model.bind_tools([weather], tool_choice="weather")
    said: list[BaseMessage] = [HumanMessage("Weather in Ghent?")]
    said.append(await asked(bound, form, said))
    said += [weather.invoke(call) for call in said[-1].tool_calls]  # type: ignore[attr-defined]
    said.append(await asked(model, form, said))
    said.append(HumanMessage("And in Bruges?"))
    said.append(await asked(model, form, said))
    return said


async def test_a_conversation_is_found_again_after_its_turns_came_from_the_cache(
    model: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    """The ids, the usage and the metadata of every earlier answer are others then."""
    first = await talk(model, form)
    for _ in range(2):
        again = await talk(model, form)
        assert [message.content for message in again[3:]] == [message.content for message in first[3:]]
        assert again[1].tool_calls[0]["id"] != first[1].tool_calls[0]["id"]  # type: ignore[attr-defined]
    assert provider.stats().requests == 3
    assert left_nothing(cache)


def test_a_key_of_the_raw_messages_would_change_after_a_hit(provider: Simulator, cache: SemanticCache) -> None:
    """The naive form fails (langchain#35308); ours does not."""
    model = dispatch(model_of(provider), cache=cache)
    histories = [[HumanMessage(QUESTION), model.invoke(QUESTION), HumanMessage("And then?")] for _ in range(2)]
    raw = [dumps(history) for history in histories]
    assert raw[0] != raw[1]
    ours = [query_of(prompt_of(history), "a model", "") for history in histories]
    assert ours[0] == ours[1]


async def test_a_streamed_turn_and_an_invoked_one_lead_to_the_same_key(
    form: str, provider: Simulator, cache: SemanticCache
) -> None:
    model = dispatch(model_of(provider), cache=cache)
    provider.reset()
    for answer in (summed(await streamed(model, form)), await asked(model, form)):
        await asked(model, form, [HumanMessage(QUESTION), answer, HumanMessage("And without yeast?")])
    assert provider.stats().requests == 2


def calls_and_results(ids: tuple[str, str], order: tuple[int, int]) -> list[BaseMessage]:
    calls = [{"name": "f", "args": {}, "id": id, "type": "tool_call"} for id in ids]
    results = [ToolMessage(f"result {n}", tool_call_id=ids[at]) for n, at in enumerate(order)]
    return [HumanMessage("q"), AIMessage("", tool_calls=calls), *results]


def test_which_result_belongs_to_which_call_counts_and_how_the_calls_are_named_does_not() -> None:
    one = query_of(prompt_of(calls_and_results(("a", "b"), (0, 1))), "m", "")
    renamed = query_of(prompt_of(calls_and_results(("x", "y"), (0, 1))), "m", "")
    crossed = query_of(prompt_of(calls_and_results(("a", "b"), (1, 0))), "m", "")
    assert one == renamed
    assert one != crossed


@pytest.mark.parametrize("name", ["id", "call_id"])
def test_ids_within_blocks_are_numbered_like_those_of_calls(name: str) -> None:
    def question(id: str) -> Any:
        calls = [{"name": "f", "args": {}, "id": id, "type": "tool_call"}]
        block = {"type": "tool_use", name: id, "name": "f", "input": {}}
        result = {"type": "tool_result", "tool_use_id": id, "content": "r"}
        return query_of(
            prompt_of([HumanMessage("q"), AIMessage([block], tool_calls=calls), HumanMessage([result])]), "m", ""
        )

    assert question("toolu_1") == question("toolu_2")


def test_a_turn_after_a_tool_s_result_goes_past_the_cache_if_its_question_does(cache: SemanticCache) -> None:
    call = {"name": "look", "args": {}, "id": "c1", "type": "tool_call"}

    def asked_by(question: str) -> Any:
        looked = [AIMessage("", tool_calls=[call]), ToolMessage("On its way." * 200, tool_call_id="c1")]
        return query_of(prompt_of([HumanMessage(question), *looked]), "model", "")

    core = cache.dispatcher.cache
    assert core.why_not_at_all(asked_by("Where is my order?")) == "personal"
    assert core.why_not_at_all(asked_by(QUESTION)) is None
    assert asked_by(QUESTION).scope != asked_by("Another?").scope


def test_tool_calls_are_bit_exact_but_for_their_ids(cache: SemanticCache) -> None:
    args = {"z": 1.0, "a": [1e-9, None, "é\u2028"], "n": {"b": True, "a": 2**60}}
    raw = '{"z":1.0,  "a":[1e-9,null,"é"],"n":{}}'
    call = {"name": "f", "args": args, "id": "toolu_01ABCDEFGHIJKLMN", "type": "tool_call"}
    function = {"id": call["id"], "type": "function", "function": {"name": "f", "arguments": raw}}
    content = [{"type": "tool_use", "id": call["id"], "name": "f", "input": args}]
    answer = AIMessage(content, tool_calls=[call], additional_kwargs={"tool_calls": [function]})  # type: ignore[arg-type]
    model = dispatch(GenericFakeChatModel(messages=iter([answer])), cache=cache)
    model.invoke("q")
    again: Any = model.invoke("q")
    [replayed] = again.tool_calls
    assert repr(replayed["args"]) == repr(args)
    assert again.additional_kwargs["tool_calls"][0]["function"]["arguments"] == raw
    new = replayed["id"]
    assert new != call["id"]
    assert (new[:6], len(new)) == ("toolu_", len(call["id"]))
    assert again.content[0]["id"] == again.additional_kwargs["tool_calls"][0]["id"] == new


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(strict=True)
    name: str
    founded: date | None = None


class Place(BaseModel):
    """A place; for arguments of a tool, in which a date is a string."""

    name: str
    founded: date | None = None


class Reply(BaseModel):
    """What the simulated provider says when it is told no schema."""

    answer: str


SCHEMAS = {"json_schema": City, "function_calling": Place, "json_mode": Reply}


@pytest.mark.parametrize("method", METHODS)
async def test_structured_output_is_answered_again_without_a_call(
    method: Any, model: Any, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    structured = model.with_structured_output(SCHEMAS[method], method=method, include_raw=True)
    first = await asked(structured, form, "Tell me of Ghent in JSON")
    again = await asked(structured, form, "Tell me of Ghent in JSON")
    assert again["raw"].response_metadata["dispatch"]["cache_hit"] == "exact"
    assert again["parsed"] == first["parsed"] is not None
    assert type(again["raw"].additional_kwargs.get("parsed")) is type(first["raw"].additional_kwargs.get("parsed"))
    assert again["raw"].content == first["raw"].content
    assert provider.stats().requests == 1
    assert left_nothing(cache)


@pytest.mark.parametrize("method", METHODS)
async def test_two_schemas_of_one_name_never_share_an_answer(
    method: Any, model: Any, form: str, provider: Simulator
) -> None:
    small = SCHEMAS[method]
    large: Any = create_model(small.__name__, __base__=small, __module__=small.__module__, size=(int, 1))
    assert repr(large) == repr(small), "LangChain's key names the class and says no more"
    for schema in (small, large, small, large):
        structured = model.with_structured_output(schema, method=method, include_raw=True)
        await asked(structured, form, "Tell me of Ghent in JSON")
    assert provider.stats().requests == 2


@pytest.mark.parametrize("method", METHODS)
async def test_the_same_schema_made_anew_finds_its_answer(
    method: Any, model: Any, form: str, provider: Simulator
) -> None:
    for _ in range(2):
        made: Any = create_model("Town", **{"answer" if method == "json_mode" else "name": (str, ...)})
        structured = model.with_structured_output(made, method=method, include_raw=True)
        answer = await asked(structured, form, "Tell me of Ghent in JSON")
        assert isinstance(answer["parsed"], made)
    assert provider.stats().requests == 1


class Town(BaseModel):
    """A town."""

    name: str
    size: int


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # langchain-openai's own
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_streamed_from_the_cache(method: Any, form: str, provider: Simulator) -> None:
    cache = SemanticCache(embedder=CountingEmbedder())
    provider.reset()
    structured = dispatch(model_of(provider), cache=cache).with_structured_output(Town, method=method)
    told = [await streamed(structured, form, "Tell me of Ghent in JSON") for _ in range(2)]
    assert isinstance(told[0][-1], Town)
    assert told[0] == told[1]
    assert await asked(structured, form, "Tell me of Ghent in JSON") == told[0][-1]
    assert provider.stats().requests == 1
    assert left_nothing(cache)


def test_what_was_parsed_and_does_not_survive_a_round_trip_is_not_stored(cache: SemanticCache) -> None:
    class Locked(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        lock: Any = None

    message = AIMessage("{}", additional_kwargs={"parsed": Locked(lock=threading.Lock())})
    model = GenericFakeChatModel(messages=iter([message, AIMessage("second")]), cache=cache)
    model.invoke("q")
    assert model.invoke("q").content == "second"


async def test_a_stale_answer_is_given_when_the_provider_fails(form: str) -> None:
    clock = Clock(1_000.0)
    aging = SemanticCache(embedder=CountingEmbedder(), ttl=Lifetime(ttl=10, stale=100))
    core: Any = aging.dispatcher.cache
    core._clock = clock
    plain = Scripted()
    limiter = TokenRateLimiter(**PLENTY)
    model = dispatch(plain, cache=aging, rate_limiter=limiter)
    await asked(model, form)
    clock.now += 50
    plain.failures.append(ConnectionError("gone"))
    heard = Heard()
    assert (await asked(model, form, config={"callbacks": [heard]})).content == "answer 1"
    assert heard.events == ["start", "end"]
    assert left_nothing(aging, limiter)
    plain.failures.append(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await asked(model, form, "Who wrote Hamlet?")
    assert left_nothing(aging, limiter)


async def test_a_stale_answer_is_streamed_when_the_provider_refuses(form: str) -> None:
    clock = Clock(1_000.0)
    aging = SemanticCache(embedder=CountingEmbedder(), ttl=Lifetime(ttl=10, stale=100))
    core: Any = aging.dispatcher.cache
    core._clock = clock
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        model = dispatch(model_of(strict), cache=aging)
        first = summed(await streamed(model, form))
        clock.now += 50
        assert summed(await streamed(model, form)).content == first.content
        assert strict.stats().rejected_429 == 1
    assert left_nothing(aging)


@pytest.mark.parametrize("method", METHODS)
def test_structured_output_is_matched_exactly(method: Any, provider: Simulator, embedder: CountingEmbedder) -> None:
    model = dispatch(model_of(provider), cache=SemanticCache(embedder=embedder))
    model.with_structured_output(City, method=method, include_raw=True).invoke("Tell me of Ghent in JSON")
    assert embedder.texts == []
