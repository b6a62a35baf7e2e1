"""The simulated provider over real HTTP: what OpenAI's clients see."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import openai
import pytest
from pydantic import BaseModel, Field
from small_book import ANSWERS, PARIS, QUESTIONS, RAG, written_to

from dispatch_core.simulate import Simulator, SimulatorConfig, count


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return written_to(tmp_path_factory.mktemp("simulator"))


@pytest.fixture(scope="module")
def shared(files: tuple[Path, Path]) -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(groups=files[0], answers=files[1], latency=0.0)) as running:
        yield running


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    assert shared.wait_idle(30)
    shared.reset()
    return shared


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=simulator.url, api_key="any", max_retries=0) as made:
        yield made


def asking(text: str) -> list[Any]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


@asynccontextmanager
async def posting(simulator: Simulator, body: Any, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    url = f"{simulator.url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=data, **options) as response:
        yield response


# The protocol, as the OpenAI SDK sees it


def test_a_completion_has_the_answer_the_usage_and_the_group(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-x", messages=asking("which city is France's  capital?")
    )
    done = raw.parse()
    choice = done.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", PARIS, "stop")
    assert done.id.startswith("chatcmpl-")
    assert (done.object, done.model) == ("chat.completion", "gpt-x")
    assert done.usage is not None
    assert done.usage.prompt_tokens == count("Be brief.") + count("which city is France's capital?") + 2 * 4 + 3
    assert done.usage.completion_tokens == count(PARIS)
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert (raw.headers["x-simulated-group"], done.system_fingerprint) == ("paris", "sim-paris")


def test_a_rag_prompt_and_content_parts_are_understood(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "What is the capital of Italy?"}]
    for content in (RAG.format("What is the capital of Italy?"), parts):
        done = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
        assert done.choices[0].message.content == "The capital of Italy is Rome."


def test_the_last_user_message_is_the_question(client: openai.OpenAI) -> None:
    turns: list[Any] = [
        {"role": "user", "content": "What is the capital of Italy?"},
        {"role": "assistant", "content": "The capital of Italy is Rome."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": None, "tool_calls": [_call("look", "{}")]},
        {"role": "tool", "tool_call_id": "1", "content": "What is the capital of Italy?"},
    ]
    done = client.chat.completions.create(model="m", messages=turns)
    assert done.choices[0].message.content == PARIS


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_the_text_and_says_so(client: openai.OpenAI, limit: str) -> None:
    options: dict[str, Any] = {limit: 3}
    done = client.chat.completions.create(model="m", messages=asking("What is the capital of France?"), **options)
    assert done.choices[0].message.content is not None
    assert PARIS.startswith(done.choices[0].message.content)
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None
    assert done.usage.completion_tokens == 3


@pytest.mark.parametrize("group", [0, 3])
def test_a_stream_carries_the_same_answer_in_pieces(client: openai.OpenAI, group: int) -> None:
    stream = client.chat.completions.create(
        model="m",
        messages=asking(str(QUESTIONS[group]["text"])),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(texts) == next(row for row in ANSWERS if row["group"] == QUESTIONS[group]["group"])["answer"]
    assert sum(map(bool, texts)) > 1
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == count("".join(texts))
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_wire_format_of_a_stream(simulator: Simulator) -> None:
    async def read() -> tuple[str, str]:
        body = {"model": "m", "messages": asking("What is the capital of France?"), "stream": True}
        async with posting(simulator, body) as response:
            assert response.headers["x-simulated-group"] == "paris"
            return response.content_type, await response.text()

    kind, text = asyncio.run(read())
    events = text.split("\n\n")
    assert kind == "text/event-stream"
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert all("usage" not in json.loads(event[6:]) for event in events[:-2])


def test_several_choices_are_counted_each(client: openai.OpenAI, simulator: Simulator) -> None:
    done = client.chat.completions.create(model="m", messages=asking("What is the capital of France?"), n=3)
    assert [(one.index, one.message.content) for one in done.choices] == [(i, PARIS) for i in range(3)]
    streamed = client.chat.completions.create(
        model="m", messages=asking("What is the capital of France?"), n=2, stream=True
    )
    texts = {0: "", 1: ""}
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: PARIS, 1: PARIS}
    assert simulator.wait_idle(30)
    assert simulator.stats().completion_tokens == 5 * count(PARIS)


def test_the_async_sdk_gets_answers_and_streams(simulator: Simulator) -> None:
    async def ask() -> tuple[list[str | None], str]:
        async with openai.AsyncOpenAI(base_url=simulator.url, api_key="any", max_retries=0) as client:
            create = client.chat.completions.create
            texts = ["What is the capital of France?", "What is the capital of Italy?"] * 10
            done = await asyncio.gather(*(create(model="m", messages=asking(text)) for text in texts))
            stream = await create(model="m", messages=asking(texts[0]), stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [one.choices[0].message.content for one in done], "".join(pieces)

    answers, streamed = asyncio.run(ask())
    assert answers == [PARIS, "The capital of Italy is Rome."] * 10
    assert streamed == PARIS


# Structure


class Node(BaseModel):
    name: str = Field(max_length=5)
    kind: Literal["leaf", "branch"]
    children: list[Node]
    parent: Node | None


class Report(BaseModel):
    answer: str
    score: float = Field(ge=0.25, le=0.75)
    stars: int = Field(gt=2, lt=6, multiple_of=5)
    tags: list[str] = Field(min_length=2)
    root: Node
    note: int | None
    sure: bool


def _tools() -> list[Any]:
    return [
        {"type": "function", "function": {"name": "first", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "report", "parameters": Report.model_json_schema()}},
    ]


FORCED: Any = {"type": "function", "function": {"name": "report"}}


def test_a_named_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    done = client.chat.completions.create(
        model="m",
        messages=asking("What is the capital of France?"),
        tools=_tools(),
        tool_choice=FORCED,
    )
    message = done.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    report = Report.model_validate_json(call.function.arguments)
    assert (call.function.name, report.answer) == ("report", PARIS)
    assert (report.stars, len(report.tags), report.root.kind) == (5, 2, "leaf")
    assert done.usage is not None
    assert done.usage.completion_tokens == count(call.function.arguments)


def test_a_required_tool_is_the_first_and_an_automatic_one_is_not_called(client: openai.OpenAI) -> None:
    messages = asking("What is the capital of France?")
    done = client.chat.completions.create(model="m", messages=messages, tools=_tools(), tool_choice="required")
    assert done.choices[0].finish_reason == "tool_calls"
    calls = done.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("first", "{}")
    done = client.chat.completions.create(model="m", messages=messages, tools=_tools(), tool_choice="auto")
    assert (done.choices[0].message.content, done.choices[0].message.tool_calls) == (PARIS, None)


def test_a_tool_call_can_be_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="m", messages=asking("What is the capital of France?"), tools=_tools(), tool_choice=FORCED
    ) as stream:
        done = stream.get_final_completion()
    calls = done.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "report"
    assert Report.model_validate_json(calls[0].function.arguments).answer == PARIS


def test_structured_output_follows_its_schema(client: openai.OpenAI) -> None:
    messages = asking("What is the capital of France?")
    done = client.chat.completions.parse(model="m", messages=messages, response_format=Report)
    report = done.choices[0].message.parsed
    assert report is not None
    assert report.answer == PARIS
    plain = client.chat.completions.create(model="m", messages=messages, response_format={"type": "json_object"})
    assert json.loads(plain.choices[0].message.content or "") == {"answer": PARIS}


# Errors

GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, None),
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].function"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": _tools(), "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": 3}}}}, None),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400_naming_the_parameter(
    simulator: Simulator, change: dict[str, Any], param: str | None
) -> None:
    async def post() -> tuple[int, Any]:
        async with posting(simulator, GOOD | change) as response:
            return response.status, await response.json()

    status, body = asyncio.run(post())
    assert status == 400
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["type"], body["error"]["param"]) == ("invalid_request_error", param)
    assert simulator.stats().by_status == {400: 1}
    assert simulator.stats().admitted == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_400(simulator: Simulator, body: bytes) -> None:
    async def post() -> tuple[int, Any]:
        async with posting(simulator, body) as response:
            return response.status, await response.json()

    status, answer = asyncio.run(post())
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_over_the_limit_is_a_413(simulator: Simulator) -> None:
    async def post() -> tuple[int, Any]:
        async with posting(simulator, b" " * (8 * 1024 * 1024 + 1)) as response:
            return response.status, await response.json()

    status, answer = asyncio.run(post())
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert simulator.stats().by_status == {413: 1}


def test_the_sdk_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(model="m", input="text")


def test_a_wrong_method_is_an_error_in_the_shape_of_the_api(simulator: Simulator) -> None:
    async def get() -> tuple[int, Any]:
        url = f"{simulator.url}/chat/completions"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.json()

    status, body = asyncio.run(get())
    assert (status, body["error"]["type"]) == (405, "invalid_request_error")


def test_a_key_is_asked_for_where_one_is_required() -> None:
    async def codes(url: str) -> list[int]:
        found = []
        async with aiohttp.ClientSession() as session:
            for headers in ({}, {"authorization": "Bearer "}, {"authorization": "Bearer key"}):
                async with session.post(f"{url}/chat/completions", json=GOOD, headers=headers) as response:
                    found.append(response.status)
                async with session.get(f"{url}/models", headers=headers) as response:
                    found.append(response.status)
        return found

    with Simulator(SimulatorConfig(latency=0.0, require_key=True)) as running:
        assert asyncio.run(codes(running.url)) == [401] * 4 + [200] * 2
