"""What goes wrong on demand, over real HTTP: what the SDKs make of it, and who pays."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import anthropic
import httpx
import openai
import pytest
from small_book import PARIS, written_to

from dispatch_core.errors import ConfigError
from dispatch_core.simulate import Fault, Simulator, SimulatorConfig, count, main

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
HEADER = "x-simulated-fault"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    groups, answers = written_to(tmp_path_factory.mktemp("simulator"))
    with Simulator(SimulatorConfig(groups=groups, answers=answers, latency=0.0, tpm=10**6)) as running:
        yield running


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    assert shared.wait_idle(30)
    shared.reset()
    return shared


def calling(simulator: Simulator, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=simulator.url, api_key="any", **{"max_retries": 0, **options})


def asking_claude(simulator: Simulator, **options: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=simulator.root, api_key="any", **{"max_retries": 0, **options})


@pytest.fixture
def client(simulator: Simulator) -> Iterator[openai.OpenAI]:
    with calling(simulator) as made:
        yield made


def ask(client: openai.OpenAI, fault: str | None = None, **options: Any) -> Any:
    headers = {HEADER: fault} if fault else {}
    return client.chat.completions.create(model="m", messages=CAPITAL, extra_headers=headers, **options)


async def fetch(method: str, url: str, body: Any = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body) as response:
        return response.status, await response.json()


# Bursts of 429


def test_a_burst_strikes_so_many_requests_and_the_sdk_retries_through_it(simulator: Simulator) -> None:
    simulator.inject(Fault(kind="rate_limit", count=2, seconds=0.001))
    with calling(simulator, max_retries=2) as client:
        assert ask(client).choices[0].message.content == PARIS
    assert simulator.wait_idle(30)
    stats = simulator.stats()
    assert (stats.by_status, stats.struck, stats.admitted) == ({200: 1, 429: 2}, 2, 1)


def test_a_burst_says_when_to_come_back_if_it_is_told(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "rate_limit; seconds=1.5")
    assert (caught.value.code, caught.value.response.headers["retry-after-ms"]) == ("rate_limit_exceeded", "1500")
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, "rate_limit")
    assert "retry-after" not in caught.value.response.headers


# Errors


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_that_of_the_api_and_the_prompt_is_paid_for(
    client: openai.OpenAI, simulator: Simulator, status: int, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, f"error; status={status}", stream=stream)
    assert (caught.value.status_code, caught.value.type) == (status, "server_error")
    assert simulator.wait_idle(30)
    stats = simulator.stats()
    assert (stats.by_status, stats.struck, stats.completion_tokens) == ({status: 1}, 1, 0)
    assert stats.prompt_tokens == count("What is the capital of France?") + 7


def test_an_overloaded_provider_is_one_in_the_words_of_either_api(simulator: Simulator) -> None:
    simulator.inject(Fault(kind="error", status=529))
    with asking_claude(simulator) as claude, pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model="m", max_tokens=9, messages=CAPITAL)
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (529, "overloaded_error")
    with calling(simulator) as client, pytest.raises(openai.InternalServerError) as told:
        ask(client)
    assert told.value.type == "overloaded_error"


def test_an_error_in_the_middle_of_a_stream_is_an_event_of_it(simulator: Simulator, client: openai.OpenAI) -> None:
    got = []
    with pytest.raises(openai.APIError, match="error while processing"):
        got.extend(_pieces(ask(client, "error; after_tokens=4", stream=True)))
    assert PARIS.startswith("".join(got))
    with asking_claude(simulator) as claude:
        headers = {HEADER: "error; status=529; after_tokens=4"}
        stream = claude.messages.create(
            model="m", max_tokens=99, messages=CAPITAL, stream=True, extra_headers=headers
        )
        seen = []
        with pytest.raises(anthropic.APIStatusError, match="overloaded"):
            seen.extend(event.type for event in stream)
    assert seen[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert simulator.wait_idle(30)
    stats = simulator.stats()
    assert stats.completion_tokens == 2 * 4
    assert stats.struck == 2


def _pieces(stream: Any) -> Iterator[str]:
    for chunk in stream:
        yield chunk.choices[0].delta.content or ""


# Connections that break


@pytest.mark.parametrize("after", [0, 4, 10_000])
def test_a_connection_breaks_in_a_stream_after_so_many_tokens(
    client: openai.OpenAI, simulator: Simulator, after: int
) -> None:
    got: list[str] = []
    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        got.extend(_pieces(ask(client, f"break; after_tokens={after}", stream=True)))
    assert PARIS.startswith("".join(got))
    assert simulator.wait_idle(30)
    stats = simulator.stats()
    assert stats.by_status == {599: 1}
    assert stats.completion_tokens == min(after, count(PARIS))


def test_a_connection_breaks_before_a_plain_answer(client: openai.OpenAI, simulator: Simulator) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client, "break; after_tokens=3")
    assert simulator.wait_idle(30)
    assert simulator.stats().completion_tokens == 3


# Silence


@pytest.mark.parametrize("stream", [False, True])
def test_a_stall_lasts_until_the_client_leaves(simulator: Simulator, stream: bool) -> None:
    with calling(simulator, timeout=0.2) as client, pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)):
        list(_pieces(ask(client, "stall; after_tokens=4", stream=stream)))
    assert simulator.wait_idle(30)
    assert simulator.stats().by_status == {499: 1}
    assert simulator.stats().completion_tokens == 4


@pytest.mark.parametrize("fault", ["stall; seconds=0.05; after_tokens=4", "slow_first_token; seconds=0.05"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_delay_changes_nothing_but_the_time(
    client: openai.OpenAI, simulator: Simulator, fault: str, stream: bool
) -> None:
    done = ask(client, fault, stream=stream)
    text = "".join(_pieces(done)) if stream else done.choices[0].message.content
    assert text == PARIS
    assert simulator.wait_idle(30)
    assert simulator.stats().by_status == {200: 1}


def test_a_first_token_that_is_slow_comes_after_the_time_told(client: openai.OpenAI) -> None:
    began = time.monotonic()
    ask(client, "slow_first_token; seconds=0.2")
    assert time.monotonic() - began >= 0.2


# Embeddings


def test_embeddings_are_struck_too(client: openai.OpenAI, simulator: Simulator) -> None:
    def embed(fault: str) -> Any:
        return client.embeddings.create(model="m", input="Hi", extra_headers={HEADER: fault})

    with pytest.raises(openai.RateLimitError):
        embed("rate_limit")
    with pytest.raises(openai.InternalServerError):
        embed("error; status=503")
    with pytest.raises(openai.APIConnectionError):
        embed("break")
    assert embed("stall; seconds=0.01").data[0].embedding
    assert simulator.wait_idle(30)
    assert simulator.stats().by_status == {200: 1, 429: 1, 503: 1, 599: 1}


# How faults are set


def test_faults_are_set_listed_and_cleared_over_http(client: openai.OpenAI, simulator: Simulator) -> None:
    url = f"{simulator.root}/faults"
    status, listed = asyncio.run(fetch("POST", url, {"kind": "error", "count": 1, "status": 503}))
    assert (status, [one["status"] for one in listed]) == (200, [503])
    with pytest.raises(openai.InternalServerError):
        ask(client)
    assert asyncio.run(fetch("GET", url)) == (200, []), "it has struck as often as it was to"
    two = [{"kind": "rate_limit", "share": 0.5}, {"kind": "stall", "seconds": 1, "lasting": 60}]
    assert [one["kind"] for one in asyncio.run(fetch("POST", url, two))[1]] == ["rate_limit", "stall"]
    assert asyncio.run(fetch("DELETE", url)) == (200, [])
    assert ask(client).choices[0].message.content == PARIS


def test_a_reset_brings_back_the_faults_of_the_start() -> None:
    config = SimulatorConfig(latency=0.0, faults=(Fault.parse("error; count=1"),))
    with Simulator(config) as running, calling(running) as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                ask(client)
            ask(client)
            running.reset()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"kind": "rain"}, "kind must be one of"),
        ({}, "needs a kind"),
        ({"kind": "stall", "colour": 1}, "a fault has"),
        ({"kind": "stall", "share": 0}, "share"),
        ({"kind": "stall", "seconds": "long"}, "seconds"),
        ({"kind": "stall", "lasting": -1}, "lasting"),
        ({"kind": "error", "status": 404}, "status"),
        ({"kind": "error", "count": 0}, "count"),
        ({"kind": "break", "after_tokens": -1}, "after_tokens"),
        ({"kind": "slow_first_token"}, "needs seconds"),
        (["stall"], "Expected a fault"),
        (None, "Expected a fault"),
    ],
)
def test_a_fault_that_makes_no_sense_is_a_400_and_changes_nothing(
    client: openai.OpenAI, simulator: Simulator, body: Any, told: str
) -> None:
    status, answer = asyncio.run(fetch("POST", f"{simulator.root}/faults", body))
    assert status == 400
    assert told in answer["error"]["message"]
    ask(client)


@pytest.mark.parametrize("line", ["rain", "stall; seconds", "stall; seconds=long", "stall; seconds=nan"])
def test_a_line_that_makes_no_sense_is_refused_in_a_header_and_on_the_command_line(
    client: openai.OpenAI, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(openai.BadRequestError, match=HEADER):
        ask(client, line)
    assert main(["--fault", line]) == 2
    assert "dispatcher simulate:" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        Fault.parse(line)


def test_a_line_and_an_object_describe_the_same_fault() -> None:
    line = "stall; seconds=5; after_tokens=8; share=0.25; count=3; lasting=60"
    fault = Fault(kind="stall", seconds=5, after_tokens=8, share=0.25, count=3, lasting=60)
    assert Fault.parse(line) == fault
    assert Fault.of(json.loads('{"kind": "stall", "seconds": 5, "after_tokens": 8, "share": 0.25}')) == Fault(
        kind="stall", seconds=5, after_tokens=8, share=0.25
    )
