"""Messages of LangChain through compressors and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from conversations import ASKED, DOORS, Counting
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate

from dispatch_core import ConfigError, EmbeddingError, Extractive, HashingEmbedder, History, Message, TokenLimiter
from dispatch_core._flow import Flow, arun, run
from dispatch_core.compress import Careful, estimated
from dispatch_core.ports import Compressor
from langchain_dispatch import RetryPolicy, SemanticCache, dispatch
from langchain_dispatch.compression import compressing, from_core, to_core

CALL = {"name": "look", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
TALK: list[BaseMessage] = [
    SystemMessage("Be kind."),
    HumanMessage([{"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}}, PICTURE], name="ann"),
    AIMessage("", tool_calls=[CALL], additional_kwargs={"x": 1}, response_metadata={"y": 2}, id="run-1"),
    ToolMessage("Result.", tool_call_id="c1", artifact=object()),
    AIMessage([{"type": "thinking", "thinking": "Hm."}, "So."], usage_metadata=None),
    AIMessageChunk("piece"),
    ChatMessage("As told.", role="developer"),
    ChatMessage("As said.", role="critic"),
    FunctionMessage("1", name="f"),
    HumanMessage([{"type": "tool_result", "tool_use_id": "c9", "content": "x"}]),
    HumanMessage([]),
    HumanMessage(""),
]


def test_what_no_compressor_touched_is_the_same_object() -> None:
    assert all(back is message for back, message in zip(from_core(to_core(TALK)), TALK, strict=True))


def test_roles_calls_and_answers_are_known() -> None:
    core = to_core(TALK)
    told = ["system", "user", "assistant", "tool", "assistant", "assistant", "system", "assistant", "tool"]
    assert [message.role for message in core] == [*told, "user", "user", "user"]
    assert (core[2].calls, core[3].answers, core[9].answers) == (("c1",), ("c1",), ("c9",))
    assert core[2].tokens == estimated('{"a": 1}')
    assert [part.kind for part in core[1].parts] == ["text", "other"]
    assert core[1].parts[1].tokens == 800


def shortened(compressor: Compressor, messages: Sequence[BaseMessage]) -> Flow[list[BaseMessage]]:
    return from_core((yield from Careful(compressor).shortened(to_core(messages))))


def test_a_text_that_was_shortened_comes_back_in_its_place_with_all_else() -> None:
    context = [
        {"type": "text", "text": f"<context>{DOORS}</context>", "cache_control": {"type": "ephemeral"}},
        PICTURE,
    ]
    before = [HumanMessage([*context, ASKED], name="ann", id="7", additional_kwargs={"x": 1})]
    (after,) = run(shortened(Extractive(HashingEmbedder(), share=0.93), before))
    assert isinstance(after, HumanMessage)
    assert (after.name, after.id, after.additional_kwargs) == ("ann", "7", {"x": 1})
    assert after.content[1:] == [PICTURE, ASKED]
    assert after.content[0].keys() == context[0].keys()
    assert "painted teal" in after.content[0]["text"]
    assert len(after.content[0]["text"]) < len(context[0]["text"])
    assert before[0].content[0] == context[0]


def test_a_prompt_of_stuffed_documents_is_shortened_within_its_system_message() -> None:
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "Use the following pieces of retrieved context to answer the question.\n\n{context}"),
            ("human", "{i}"),
        ]
    )
    before = prompt.invoke({"context": DOORS, "i": ASKED}).to_messages()
    after = run(shortened(Extractive(HashingEmbedder()), before))
    assert after[1] is before[1]
    assert isinstance(after[0], SystemMessage)
    assert after[0].text.startswith(
        "Use the following pieces of retrieved context to answer the question.\n\n# Harrow"
    )
    assert "painted teal" in after[0].text


def test_a_message_from_elsewhere_is_made_anew() -> None:
    made = from_core([Message.of("system", "a"), Message.of("user", "b"), Message.of("assistant", "c")])
    assert made == [SystemMessage("a"), HumanMessage("b"), AIMessage("c")]
    assert from_core([Message("tool", answers=("c1",))]) == [ToolMessage("", tool_call_id="c1")]


SAID = st.text("ab ", min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(st.tuples(SAID, st.integers(0, 2), SAID), min_size=1, max_size=6), st.integers(1, 120))
def test_history_leaves_what_trim_messages_leaves(led: bool, turns: list[Any], budget: int) -> None:
    talk: list[BaseMessage] = [SystemMessage("Be kind.")] if led else []
    for at, (asked, calls, answered) in enumerate(turns):
        ids = [f"{at}.{number}" for number in range(calls)]
        talk.append(HumanMessage(asked))
        if ids:
            talk.append(AIMessage("", tool_calls=[{**CALL, "id": id} for id in ids]))
            talk += [ToolMessage(answered, tool_call_id=id) for id in ids]
        talk.append(AIMessage(answered))

    def count(messages: list[BaseMessage]) -> int:
        return sum(len(message.text) for message in to_core(messages))

    settings = {"strategy": "last", "include_system": True, "start_on": "human", "token_counter": count}
    theirs = trim_messages(talk, max_tokens=budget, **settings)
    core = [Message(one.role, one.parts, one.calls, one.answers, 0, one.source) for one in to_core(talk)]
    ours = from_core(History(count=len).compress(core, budget).messages)
    last = max(at for at, message in enumerate(talk) if isinstance(message, HumanMessage))
    # They leave no turn at all where the last is too long, which no provider takes.
    assert ours == (theirs if any(isinstance(one, HumanMessage) for one in theirs) else [*talk[:led], *talk[last:]])


class Listening(BaseChatModel):
    """Has no stream; remembers what it was sent."""

    heard: list[Any] = []  # noqa: RUF012  a field of pydantic

    @property
    def _llm_type(self) -> str:
        return "listening"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.heard.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("teal"))])


def _compressing(kind: type[BaseChatModel], names: dict[str, Any] | None = None) -> type[Any]:
    prepare = partial(shortened, Extractive(HashingEmbedder()))
    return type(kind.__name__, (kind,), {"__module__": __name__, **compressing(kind, names or {}, prepare)})


async def test_a_model_is_sent_shortened_messages_however_it_is_asked() -> None:
    model = _compressing(Listening)()
    asked = [HumanMessage(f"<context>{DOORS}</context>\n{ASKED}")]
    model.invoke(asked)
    await model.ainvoke(asked)
    list(model.stream(asked))
    assert len(model.heard) == 3
    assert all("painted teal" in sent.text and len(sent.text) < len(asked[0].text) for (sent,) in model.heard)


async def test_streams_are_shortened_and_what_a_class_has_not_is_not_made_up() -> None:
    assert set(compressing(Listening, {}, lambda messages: iter(()))) == {"_generate"}
    model = _compressing(FakeListChatModel)(responses=["teal"])
    asked = [HumanMessage(f"<context>{DOORS}</context>\n{ASKED}")]
    assert "".join(chunk.text for chunk in model.stream(asked)) == "teal"
    assert "".join([chunk.text async for chunk in model.astream(asked)]) == "teal"


def test_methods_that_take_the_place_of_a_models_own_are_the_ones_that_are_wrapped() -> None:
    def generate(self: Any, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"{len(messages[0].text)}"))])

    model = _compressing(Listening, {"_generate": generate})()
    asked = [HumanMessage(f"<context>{DOORS}</context>\n{ASKED}")]
    assert int(model.invoke(asked).text) < len(asked[0].text)


async def test_both_forms_leave_the_same() -> None:
    asked = [HumanMessage(f"<context>{DOORS}</context>\n{ASKED}")]
    extractive = Extractive(HashingEmbedder())
    assert run(shortened(extractive, asked)) == await arun(shortened(extractive, asked))


@pytest.mark.parametrize("content", ["", [], [""], [PICTURE]])
def test_a_message_with_next_to_nothing_in_it_stays(content: Any) -> None:
    before = [HumanMessage(content)]
    assert run(shortened(Extractive(HashingEmbedder()), before)) == before


PROMPT = [SystemMessage(f"<context>{DOORS}</context>"), HumanMessage("What is the door painted?")]
WAYS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "invoke": lambda model: _now(model.invoke(PROMPT).text),
    "ainvoke": lambda model: model.ainvoke(PROMPT),
    "stream": lambda model: _now(list(model.stream(PROMPT))),
    "astream": lambda model: _all(model.astream(PROMPT)),
}


async def _now(value: Any) -> Any:
    return value


async def _all(chunks: Any) -> Any:
    return [chunk async for chunk in chunks]


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Callable[[Any], Awaitable[Any]]:
    return WAYS[request.param]


async def test_a_dispatched_model_compresses_once_and_reserves_what_it_sends(ask: Any) -> None:
    compressor, limiter = Counting(), TokenLimiter(rpm=1_000, tpm=1_000_000)
    whole, short = Listening(heard=[]), Listening(heard=[])
    await ask(dispatch(whole, rate_limiter=limiter))
    first = limiter.stats().tokens_used
    await ask(dispatch(short, rate_limiter=limiter, compressor=compressor))
    second = limiter.stats().tokens_used - first
    assert len(short.heard[0][0].text) < len(whole.heard[0][0].text)
    assert short.heard[0][1] == PROMPT[1]
    assert compressor.asked == 1
    assert second < first


async def test_the_cache_looks_for_the_whole_prompt_and_a_hit_compresses_nothing(ask: Any) -> None:
    compressor, cache = Counting(), SemanticCache(embedder=HashingEmbedder())
    model = dispatch(Listening(heard=[]), cache=cache, compressor=compressor)
    for _ in range(2):
        await ask(model)
    await ask(dispatch(Listening(heard=[]), cache=cache))
    assert compressor.asked == 1
    assert cache.stats().exact_hits == 2


async def test_a_compressor_that_fails_leaves_the_prompt_as_it_is(ask: Any, caplog: Any) -> None:
    model = dispatch(Listening(heard=[]), compressor=Counting(EmbeddingError("no encoder")))
    for _ in range(2):
        await ask(model)
    assert [sent[0].text for sent in model.heard] == [PROMPT[0].text] * 2
    assert [record.message for record in caplog.records] == [
        "the compressor failed, calls go on without it: EmbeddingError: no encoder"
    ]


async def test_each_attempt_sends_the_short_prompt_that_was_made_once(ask: Any) -> None:
    class Failing(Listening):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            result = super()._generate(messages, *args, **kwargs)
            if len(self.heard) == 1:
                raise ConnectionError
            return result

    compressor = Counting()
    model = dispatch(
        Failing(heard=[]),
        compressor=compressor,
        rate_limiter=TokenLimiter(rpm=1_000, tpm=1_000_000),
        retries=RetryPolicy(base=0.0),
    )
    await ask(model)
    assert len(model.heard) == 2
    assert model.heard[0] == model.heard[1]
    assert compressor.asked == 1


def test_what_is_no_compressor_is_refused() -> None:
    with pytest.raises(ConfigError, match="compressor is a Compressor, got str"):
        dispatch(Listening(), compressor="gzip")  # type: ignore[arg-type]
