"""OpenAI's official SDK through the gateway, unchanged but for its ``base_url``, to the simulated provider.

Whoever runs this file runs it for the version that is installed; ``DISPATCH_TEST_OPENAI`` says which that has to be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from gateways import Gateway
from pydantic import BaseModel
from sdks import KEY, QUESTION, TOOLS, asking, eager_to, gateway_to, locked_to, simulated
from small_book import PARIS

from dispatch_core.simulate import Fault, Simulator


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulated(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def gateway(provider: Simulator) -> Iterator[Gateway]:
    provider.reset()
    with gateway_to(provider) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=0) as made:
        yield made


def test_the_version_is_the_one_meant() -> None:
    assert openai.__version__.split(".")[0] == os.environ.get("DISPATCH_TEST_OPENAI", "2")


def test_a_question_in_other_words_is_answered_from_the_cache_and_costs_nothing(
    client: openai.OpenAI, provider: Simulator
) -> None:
    first = client.chat.completions.create(model="m", messages=asking())
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=asking("what is the capital of france")
    )
    second = raw.parse()
    assert first.choices[0].message.content == second.choices[0].message.content == PARIS
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.total_tokens == 0
    assert raw.headers["cache-status"] == 'dispatch; hit; detail="semantic"'
    assert raw.headers["x-dispatch-tokens-saved"] == str(first.usage.total_tokens)
    assert second.id not in ("", first.id)
    assert provider.stats().requests == 1


def test_a_stream_and_a_whole_answer_share_an_entry(client: openai.OpenAI, provider: Simulator) -> None:
    def streamed(**options: Any) -> list[Any]:
        return list(client.chat.completions.create(model="m", messages=asking(), stream=True, **options))

    def text(chunks: list[Any]) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    fresh, replayed = streamed(), streamed(stream_options={"include_usage": True})
    whole = client.chat.completions.create(model="m", messages=asking())
    assert text(fresh) == text(replayed) == whole.choices[0].message.content == PARIS
    assert all(chunk.choices for chunk in fresh), "nobody asked for a usage chunk"
    assert replayed[-1].usage.total_tokens == 0
    assert replayed[-2].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in fresh}.isdisjoint(chunk.id for chunk in replayed)
    assert provider.stats().requests == 1


def test_another_model_parameter_or_system_prompt_is_another_question(
    client: openai.OpenAI, provider: Simulator
) -> None:
    for options in ({}, {"temperature": 0.5}, {"model": "other"}, {"max_tokens": 100}, {"seed": 1}):
        client.chat.completions.create(**{"model": "m", "messages": asking(), **options})
    client.chat.completions.create(model="m", messages=asking()[1:])
    assert provider.stats().requests == 6
    client.chat.completions.create(model="m", messages=asking(), user="somebody", metadata={"a": "b"}, store=False)
    assert provider.stats().requests == 6, "who asks is no part of the question"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_are_replayed_with_ids_of_their_own(
    client: openai.OpenAI, provider: Simulator, stream: bool
) -> None:
    def called() -> tuple[str, str, str]:
        done: Any = client.chat.completions.create(
            model="m", messages=asking(), tools=TOOLS, tool_choice="required", stream=stream
        )
        if not stream:
            call = done.choices[0].message.tool_calls[0]
            return call.id, call.function.name, call.function.arguments
        deltas = [call for chunk in done for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        return (
            "".join(call.id or "" for call in deltas),
            "".join(call.function.name or "" for call in deltas),
            "".join(call.function.arguments or "" for call in deltas),
        )

    first, second = called(), called()
    assert first[1:] == second[1:]
    assert first[1] == "look"
    assert "city" in json.loads(first[2])
    assert first[0] != second[0]
    assert provider.stats().requests == 1


def test_a_turn_with_a_replayed_tool_call_finds_the_answer_of_the_first(
    client: openai.OpenAI, provider: Simulator
) -> None:
    for _ in range(2):
        done = client.chat.completions.create(model="m", messages=asking(), tools=TOOLS, tool_choice="required")
        message = done.choices[0].message
        assert message.tool_calls is not None
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        turns = [*asking(), message.model_dump(exclude_none=True), result]
        client.chat.completions.create(model="m", messages=turns, tools=TOOLS)
    assert provider.stats().requests == 2


def test_a_json_schema_is_kept_to_and_matched_exactly(client: openai.OpenAI, provider: Simulator) -> None:
    class City(BaseModel):
        name: str

    parsed = [
        client.chat.completions.parse(model="m", messages=asking(text), response_format=City)
        for text in (QUESTION, QUESTION, "what is the capital of france")
    ]
    assert all(isinstance(one.choices[0].message.parsed, City) for one in parsed)
    assert provider.stats().requests == 2


def test_embeddings_models_and_completions(client: openai.OpenAI, provider: Simulator) -> None:
    first, second = (client.embeddings.create(model="e", input=["a", "b"]) for _ in range(2))
    assert first.data[0].embedding == second.data[0].embedding
    assert (second.usage.total_tokens, provider.stats().requests) == (0, 1)
    assert [model.id for model in client.models.list()] == ["sim-large", "sim-small"]
    assert client.models.retrieve("sim-large").owned_by == "simulator"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("unheard-of")
    one, other = (client.completions.create(model="m", prompt="Say hello.", max_tokens=999) for _ in range(2))
    assert one.choices[0].text == other.choices[0].text
    assert provider.stats().requests == 2


def test_errors_are_the_upstreams_own_and_never_stored(client: openai.OpenAI, provider: Simulator) -> None:
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model="m", messages=asking(), n=4096)
        assert raised.value.body == {
            "message": "Invalid value for 'n': expected an integer from 1 to 128.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_type",
        }
    assert provider.stats().requests == 2


async def test_the_asynchronous_client_is_answered_alike(gateway: Gateway, provider: Simulator) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.url, api_key="any", max_retries=0) as client:
        whole = await client.chat.completions.create(model="m", messages=asking())
        text = ""
        async with client.chat.completions.stream(model="m", messages=asking()) as stream:
            async for event in stream:
                text += event.delta if event.type == "content.delta" else ""
        last = await stream.get_final_completion()
    assert whole.choices[0].message.content == text == last.choices[0].message.content == PARIS
    assert provider.stats().requests == 1


def test_a_wrong_key_another_model_and_a_spent_limit_are_the_sdks_own_errors(provider: Simulator) -> None:
    provider.reset()
    asked: Any = {"model": "m", "messages": asking()}
    with locked_to(provider) as gateway, openai.OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            client.with_options(api_key="another").chat.completions.create(**asked)
        with pytest.raises(openai.NotFoundError) as elsewhere:
            client.chat.completions.create(**{**asked, "model": "gpt"})
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**{**asked, "messages": []})
        client.chat.completions.create(**asked)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**{**asked, "messages": asking("Who are you?")})
        client.chat.completions.create(**asked)
    assert (unknown.value.code, elsewhere.value.code, elsewhere.value.param) == (
        *("invalid_api_key", "model_not_found", "model"),
    )
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 61
    assert int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert provider.stats().requests == 1, "nothing else reached the provider, and a hit needs no turn"


@pytest.mark.parametrize("kind", ["error", "break"])
def test_the_sdk_tries_again_what_the_upstream_failed(gateway: Gateway, provider: Simulator, kind: Any) -> None:
    provider.inject(Fault(kind=kind, count=1))
    with openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=2) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=asking())
    assert (raw.retries_taken, raw.parse().choices[0].message.content) == (1, PARIS)
    assert provider.stats().requests == 2


def test_the_sdk_waits_as_long_as_the_gateway_says_and_tries_again(provider: Simulator) -> None:
    with eager_to(provider) as gateway, openai.OpenAI(base_url=gateway.url, api_key="any", max_retries=9) as client:
        told = []
        for number in range(4):
            raw = client.chat.completions.with_raw_response.create(model="m", messages=asking(f"Number {number}?"))
            told.append(raw.retries_taken)
        assert sum(told) >= 1
