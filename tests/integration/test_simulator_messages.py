"""The simulated provider over real HTTP: what Anthropic's client sees."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel
from small_book import ANSWERS, PARIS, QUESTIONS, written_to

from dispatch_core.simulate import Simulator, SimulatorConfig, count

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]


class City(BaseModel):
    name: str
    country: str


TOOLS: list[Any] = [
    {"name": "first", "input_schema": {"type": "object"}},
    {"name": "city", "input_schema": City.model_json_schema()},
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    groups, answers = written_to(tmp_path_factory.mktemp("simulator"))
    with Simulator(SimulatorConfig(groups=groups, answers=answers, latency=0.0)) as running:
        yield running


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    assert shared.wait_idle(30)
    shared.reset()
    return shared


def calling(simulator: Simulator, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=simulator.root, api_key="any", **{"max_retries": 0, **options})


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    with calling(simulator) as made:
        yield made


def posted(simulator: Simulator, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{simulator.url}/messages", io.BytesIO(data), headers, method="POST")
    request.add_header("content-length", str(len(data)))
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


VERSION = {"anthropic-version": "2023-06-01"}


# Answers


def test_a_message_has_the_answer_the_usage_and_the_group(client: anthropic.Anthropic, simulator: Simulator) -> None:
    raw = client.messages.with_raw_response.create(
        model="claude-x", max_tokens=100, system="Be brief.", messages=CAPITAL
    )
    done = raw.parse()
    [block] = done.content
    assert block.type == "text"
    assert (block.text, done.role, done.stop_reason, done.model) == (PARIS, "assistant", "end_turn", "claude-x")
    assert done.id.startswith("msg_")
    asked = count("Be brief.") + count("What is the capital of France?") + 2 * 4 + 3
    assert (done.usage.input_tokens, done.usage.output_tokens) == (asked, count(PARIS))
    assert raw.headers["x-simulated-group"] == "paris"
    assert simulator.wait_idle(30)
    stats = simulator.stats()
    assert (stats.prompt_tokens, stats.completion_tokens) == (asked, count(PARIS))


def test_blocks_and_the_results_of_tools_are_understood(client: anthropic.Anthropic) -> None:
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "1", "name": "city", "input": {"name": "Paris"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "yes, Paris"}]},
    ]
    done = client.messages.create(model="m", max_tokens=100, messages=turns)
    assert [block.text for block in done.content if block.type == "text"] == [PARIS]
    told = count("What is the capital of France?") + count('{"name": "Paris"}') + count("yes, Paris")
    assert done.usage.input_tokens == told + 3 * 4 + 3


def test_max_tokens_cuts_the_text_and_says_so(client: anthropic.Anthropic) -> None:
    done = client.messages.create(model="m", max_tokens=3, messages=CAPITAL)
    assert done.stop_reason == "max_tokens"
    assert done.usage.output_tokens == 3
    assert done.content[0].type == "text"
    assert PARIS.startswith(done.content[0].text)


@pytest.mark.parametrize("question", [0, 3])
def test_a_stream_carries_the_same_answer_in_pieces(client: anthropic.Anthropic, question: int) -> None:
    row = QUESTIONS[question]
    answer = next(one for one in ANSWERS if one["group"] == row["group"])["answer"]
    with client.messages.stream(
        model="m", max_tokens=100, messages=[{"role": "user", "content": row["text"]}]
    ) as stream:
        pieces = list(stream.text_stream)
        done = stream.get_final_message()
    assert "".join(pieces) == answer
    assert len(pieces) > 1
    assert done.stop_reason == "end_turn"
    assert done.usage.output_tokens == count(answer)


def test_the_events_of_a_stream_come_in_the_order_of_the_api(simulator: Simulator) -> None:
    body = {"model": "m", "max_tokens": 100, "messages": CAPITAL, "stream": True}
    status, headers, text = posted(simulator, body, VERSION)
    events = [block.split("\n") for block in text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in events]
    bodies = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert (status, headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert [one["type"] for one in bodies] == names
    assert list(dict.fromkeys(names)) == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert bodies[0]["message"]["content"] == []
    assert bodies[0]["message"]["stop_reason"] is None
    assert bodies[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert bodies[-2]["usage"] == {"output_tokens": count(PARIS)}


# Structure


@pytest.mark.parametrize(("choice", "name"), [({"type": "any"}, "first"), ({"type": "tool", "name": "city"}, "city")])
def test_a_tool_is_called_with_input_of_its_schema(client: anthropic.Anthropic, choice: Any, name: str) -> None:
    done = client.messages.create(model="m", max_tokens=100, messages=CAPITAL, tools=TOOLS, tool_choice=choice)
    [block] = done.content
    assert block.type == "tool_use"
    assert (block.name, done.stop_reason) == (name, "tool_use")
    assert block.id.startswith("toolu_")
    if name == "city":
        assert City.model_validate(block.input).name == PARIS


def test_a_tool_call_can_be_streamed(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="m", max_tokens=100, messages=CAPITAL, tools=TOOLS, tool_choice={"type": "tool", "name": "city"}
    ) as stream:
        done = stream.get_final_message()
    [block] = done.content
    assert block.type == "tool_use"
    assert City.model_validate(block.input).country == PARIS
    assert done.stop_reason == "tool_use"


def test_a_tool_is_not_called_by_itself_and_a_cut_one_has_no_input(client: anthropic.Anthropic) -> None:
    done = client.messages.create(model="m", max_tokens=100, messages=CAPITAL, tools=TOOLS)
    assert [block.type for block in done.content] == ["text"]
    cut = client.messages.create(
        model="m", max_tokens=2, messages=CAPITAL, tools=TOOLS, tool_choice={"type": "tool", "name": "city"}
    )
    assert cut.stop_reason == "max_tokens"
    assert cut.content[0].type == "tool_use"
    assert cut.content[0].input == {}


def test_structured_output_follows_its_schema(client: anthropic.Anthropic) -> None:
    shape: Any = {"format": {"type": "json_schema", "schema": City.model_json_schema()}}
    done = client.messages.create(model="m", max_tokens=100, messages=CAPITAL, output_config=shape)
    assert done.content[0].type == "text"
    assert City.model_validate_json(done.content[0].text).name == PARIS


# Errors

GOOD: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": CAPITAL}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages.0.content"),
        ({"system": 3}, "system"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools.0.name"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format"),
        ({"output_config": 3}, "output_config"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_400_naming_the_parameter(
    simulator: Simulator, change: dict[str, Any], where: str
) -> None:
    status, headers, text = posted(simulator, GOOD | change, VERSION)
    body = json.loads(text)
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert body["error"]["message"].startswith(f"{where}: ")
    assert body["request_id"] == headers["request-id"]
    assert simulator.stats().by_status == {400: 1}


def test_a_request_without_a_version_is_a_400(simulator: Simulator) -> None:
    status, _, text = posted(simulator, GOOD, {})
    assert (status, json.loads(text)["error"]["message"]) == (400, "anthropic-version: header is required")
    assert simulator.stats().by_status == {400: 1}


def test_a_key_is_asked_for_where_one_is_required() -> None:
    with Simulator(SimulatorConfig(latency=0.0, require_key=True)) as running:
        status, _, text = posted(running, GOOD, VERSION)
        assert (status, json.loads(text)["error"]["type"]) == (401, "authentication_error")
        for key in ({"x-api-key": "any"}, {"authorization": "Bearer any"}):
            assert posted(running, GOOD, {**VERSION, **key})[0] == 200


# Quota


def test_the_quota_tells_where_it_stands_and_says_when_to_come_back() -> None:
    limits: dict[str, Any] = {"rpm": 50, "itpm": 10_000, "otpm": 600, "window": 60.0}
    with Simulator(SimulatorConfig(latency=0.0, **limits)) as running, calling(running) as client:
        create = client.messages.with_raw_response.create
        first = create(model="m", max_tokens=20_000, messages=CAPITAL)
        usage = first.parse().usage
        headers = first.headers
        assert headers["anthropic-ratelimit-requests-limit"] == "50"
        assert headers["anthropic-ratelimit-requests-remaining"] == "49"
        assert int(headers["anthropic-ratelimit-input-tokens-remaining"]) == 10_000 - usage.input_tokens
        assert headers["anthropic-ratelimit-output-tokens-remaining"] == "600", "max_tokens reserves nothing"
        full = datetime.fromisoformat(headers["anthropic-ratelimit-input-tokens-reset"])
        assert full > datetime.now(UTC)
        assert not any(name.startswith("x-ratelimit") for name in headers)
        second = create(model="m", max_tokens=100, messages=CAPITAL)
        left = int(second.headers["anthropic-ratelimit-output-tokens-remaining"])
        assert left == 600 - usage.output_tokens
        with pytest.raises(anthropic.RateLimitError, match="10000 input tokens per minute") as caught:
            create(model="m", max_tokens=100, messages=[{"role": "user", "content": "word " * 9_990}])
        headers = caught.value.response.headers
        assert 0 < int(headers["retry-after"]) <= 60
        assert caught.value.body == {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": caught.value.body["error"]["message"]},
            "request_id": headers["request-id"],
        }
        assert running.stats().by_status == {200: 2, 429: 1}
