"""The gateway as ``curl`` sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from gateways import Gateway
from sdks import KEY, PARAMETERS, QUESTION, SCHEMA, TOOLS, asking, gateway_to, locked_to, simulated
from small_book import PARIS

from dispatch_core.simulate import Fault, Simulator


@dataclass
class Said:
    """What curl wrote: the status, the last answer's headers, and its body."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def curl(url: str, body: Any = None, *options: str, key: str = "any") -> Said:
    program = shutil.which("curl")
    assert program is not None
    words = [program, "-sS", "-i", "-H", f"authorization: Bearer {key}", *options, url]
    if body is not None:
        words += ["-H", "content-type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    # With retries there is an answer for each.
    *_, last = done.stdout.split("HTTP/1.1 ")
    head, _, said = last.partition("\n\n")
    status, *lines = head.splitlines()
    return Said(int(status[:3]), {name.lower(): value.strip() for name, _, value in map(_cut, lines)}, said)


def _cut(line: str) -> tuple[str, str, str]:
    return line.partition(":")


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulated(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def gateway(provider: Simulator) -> Iterator[Gateway]:
    provider.reset()
    with gateway_to(provider) as running:
        yield running


def test_a_whole_answer_and_events(gateway: Gateway, provider: Simulator) -> None:
    url = f"{gateway.url}/chat/completions"
    whole = curl(url, {"model": "m", "messages": asking()})
    assert whole.json()["choices"][0]["message"]["content"] == PARIS
    assert whole.headers["cache-status"] == "dispatch; fwd=miss; stored"
    streamed = curl(url, {"model": "m", "messages": asking(), "stream": True}, "-N")
    *events, done = [line.removeprefix("data: ") for line in streamed.body.splitlines() if line]
    assert (done, streamed.headers["content-type"].split(";")[0]) == ("[DONE]", "text/event-stream")
    assert "".join(json.loads(one)["choices"][0]["delta"].get("content") or "" for one in events) == PARIS
    assert int(streamed.headers["x-dispatch-tokens-saved"]) > 0
    asked = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": QUESTION}]}
    assert curl(f"{gateway.url}/messages", asked).json()["content"][0]["text"] == PARIS
    assert provider.stats().requests == 2


def test_a_tool_and_a_schema(gateway: Gateway) -> None:
    url, asked = f"{gateway.url}/chat/completions", {"model": "m", "messages": asking()}
    called = curl(url, {**asked, "tools": TOOLS, "tool_choice": "required"}).json()["choices"][0]["message"]
    assert called["tool_calls"][0]["function"]["name"] == "look"
    assert PARAMETERS["required"] == [*json.loads(called["tool_calls"][0]["function"]["arguments"])]
    shape = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    formed = curl(url, {**asked, "response_format": shape}).json()["choices"][0]["message"]["content"]
    assert [*json.loads(formed)] == ["name"]


def test_errors(provider: Simulator) -> None:
    provider.reset()
    with locked_to(provider) as gateway:
        url, asked = f"{gateway.url}/chat/completions", {"model": "m", "messages": asking()}
        told = [
            curl(url, asked, key="another"),
            curl(url, {**asked, "model": "gpt"}, key=KEY),
            curl(url, {**asked, "messages": "Hello"}, key=KEY),
            curl(url, asked, key=KEY),
            curl(url, {**asked, "messages": asking("Who are you?")}, key=KEY),
        ]
    assert [one.status for one in told] == [401, 404, 400, 200, 429]
    codes = [one.json()["error"]["code"] for one in told if one.status != 200]
    assert codes == ["invalid_api_key", "model_not_found", "invalid_value", "rate_limit_exceeded"]
    assert 0 < int(told[-1].headers["retry-after"]) <= 61


def test_it_comes_back_when_it_was_told_to(provider: Simulator) -> None:
    provider.reset()
    provider.inject(Fault(kind="rate_limit", count=1, seconds=1))
    with gateway_to(provider, retries=0) as gateway:
        said = curl(f"{gateway.url}/chat/completions", {"model": "m", "messages": asking()}, "--retry", "2")
    assert (said.status, said.json()["choices"][0]["message"]["content"]) == (200, PARIS)
    assert provider.stats().by_status == {200: 1, 429: 1}
