"""Other SDKs through the gateway, unchanged but for their ``base_url``, to the simulated provider."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import openai3
import pytest
from gateways import Gateway
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI as LlamaOpenAI
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, SecretStr
from sdks import KEY, PARAMETERS, QUESTION, SCHEMA, eager_to, gateway_to, locked_to, simulated
from servers import IN_CI
from small_book import PARIS

from dispatch_core.simulate import Fault, Simulator


class City(BaseModel):
    """A city."""

    name: str


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulated(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def gateway(provider: Simulator) -> Iterator[Gateway]:
    provider.reset()
    with gateway_to(provider) as running:
        yield running


if IN_CI or openai3.found():

    def test_openais_sdk_of_version_3_passes_the_tests_of_version_2() -> None:
        folder = openai3.found()
        assert folder is not None, "python tests/openai3.py fetches it"
        paths = [str(folder), *filter(None, sys.path)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DISPATCH_TEST_OPENAI": "3"}
        file = Path(__file__).with_name("test_gateway_openai.py")
        # The fixtures of others need version 2.
        words = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", str(file)]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def claude(gateway: Gateway, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.root, **{"api_key": "any", "max_retries": 0, **options})


def asked(text: str = QUESTION, **options: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **options}


def test_anthropics_sdk(gateway: Gateway, provider: Simulator) -> None:
    tools: Any = [{"name": "look", "input_schema": PARAMETERS}]
    shape = {"format": {"type": "json_schema", "schema": SCHEMA}}
    with claude(gateway) as client:
        whole = client.messages.create(**asked())
        with client.messages.stream(**asked("what is the capital of france")) as stream:
            replayed = stream.get_final_message()
        calls: list[Any] = [
            client.messages.create(**asked(tools=tools, tool_choice={"type": "any"})).content[0] for _ in range(2)
        ]
        formed = client.messages.create(**asked(output_config=shape))
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            client.messages.create(**asked(max_tokens=0))
    assert [block.text for block in (whole.content[0], replayed.content[0])] == [PARIS, PARIS]  # type: ignore[union-attr]
    assert (replayed.usage.input_tokens, replayed.usage.output_tokens) == (0, 0)
    assert [call.name for call in calls] == ["look", "look"]
    assert calls[0].input == calls[1].input
    assert calls[0].id != calls[1].id
    assert City.model_validate_json(formed.content[0].text)  # type: ignore[union-attr]
    assert provider.stats().requests == 4


def test_errors_in_anthropics_sdk(provider: Simulator) -> None:
    provider.reset()
    with locked_to(provider) as gateway, claude(gateway, api_key=KEY) as client:
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="another").messages.create(**asked())
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**asked(model="claude"))
        with pytest.raises(anthropic.BadRequestError) as unread:
            client.messages.create(**asked(messages=[]))
        client.messages.create(**asked())
        with pytest.raises(anthropic.RateLimitError) as refused:
            client.messages.create(**asked("Who are you?"))
    body: Any = unread.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 61


def test_anthropics_sdk_tries_again_what_failed_and_what_was_refused(gateway: Gateway, provider: Simulator) -> None:
    provider.inject(Fault(kind="error", status=529, count=1))
    with claude(gateway, max_retries=2) as client:
        raw = client.messages.with_raw_response.create(**asked())
    assert (raw.retries_taken, raw.parse().content[0].text) == (1, PARIS)  # type: ignore[union-attr]
    with eager_to(provider) as eager, claude(eager, max_retries=9) as client:
        many = [client.messages.with_raw_response.create(**asked(f"Number {number}?")) for number in range(4)]
    assert sum(one.retries_taken for one in many) >= 1


def test_langchain(gateway: Gateway, provider: Simulator) -> None:
    model = ChatOpenAI(base_url=gateway.url, api_key=SecretStr("any"), model="m", max_retries=0)
    assert model.invoke(QUESTION).content == PARIS
    assert "".join(str(chunk.content) for chunk in model.stream(QUESTION)) == PARIS
    assert provider.stats().requests == 1
    calling = model.bind_tools([City], tool_choice="City")
    calls = [calling.invoke(QUESTION) for _ in range(2)]
    assert all(isinstance(one, AIMessage) and one.tool_calls[0]["name"] == "City" for one in calls)
    assert isinstance(model.with_structured_output(City, method="json_schema").invoke(QUESTION), City)
    assert provider.stats().requests == 3
    with pytest.raises(openai.BadRequestError):
        model.invoke(QUESTION, n=4096)
    provider.inject(Fault(kind="error", count=1))
    again = ChatOpenAI(base_url=gateway.url, api_key=SecretStr("any"), model="m", max_retries=1)
    assert again.invoke("Who are you?").content


def test_llama_index(gateway: Gateway, provider: Simulator) -> None:
    model = LlamaOpenAI(api_base=gateway.url, api_key="any", model="gpt-4o-mini", max_retries=0)
    question = [ChatMessage(role="user", content=QUESTION)]
    assert model.chat(question).message.content == PARIS
    assert [chunk.message.content for chunk in model.stream_chat(question)][-1] == PARIS
    assert provider.stats().requests == 1


def test_llama_indexs_model_for_all_that_is_like_openais(gateway: Gateway, provider: Simulator) -> None:
    model = OpenAILike(
        api_base=gateway.url,
        api_key="any",
        model="m",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    question = [ChatMessage(role="user", content=QUESTION)]
    assert model.chat(question).message.content == PARIS
    assert [chunk.message.content for chunk in model.stream_chat(question)][-1] == PARIS
    assert provider.stats().requests == 1
    look = FunctionTool.from_defaults(lambda city: city, name="look", description="Look at a city.")
    called = [model.chat_with_tools([look], QUESTION, tool_required=True) for _ in range(2)]
    names = [call.tool_name for one in called for call in model.get_tool_calls_from_response(one)]
    assert names == ["look", "look"]
    assert provider.stats().requests == 2
    assert isinstance(called[0].message.blocks, list)
    with pytest.raises(openai.BadRequestError):
        model.chat(question, n=4096)
