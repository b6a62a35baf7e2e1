"""The simulated provider's quota over HTTP, its counters, clients that leave early, and starting and stopping."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from dispatch_core.errors import ConfigError, MissingExtra
from dispatch_core.simulate import Simulator, SimulatorConfig, Style, count, main

QUESTIONS = [
    {"group": "paris", "text": "What is the capital of France?"},
    {"group": "long", "text": "Tell me everything."},
]
PARIS = "The capital of France is Paris."
ANSWERS = [{"group": "paris", "answer": PARIS}, {"group": "long", "answer": "word " * 20_000}]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("simulator")
    paths = folder / "questions.jsonl", folder / "answers.jsonl"
    for path, rows in zip(paths, (QUESTIONS, ANSWERS), strict=True):
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return paths


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0.0)) as running:
        yield running


def calling(simulator: Simulator) -> openai.OpenAI:
    return openai.OpenAI(base_url=simulator.url, api_key="any", max_retries=0)


def asking(text: str) -> list[Any]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


# Quota


@pytest.mark.parametrize("style", ["sliding", "bucket", "fixed"])
def test_the_quota_answers_429_with_every_header(style: Style) -> None:
    config = SimulatorConfig(latency=0.0, rpm=100, tpm=1000, style=style, window=3600.0)
    with (
        Simulator(config) as running,
        calling(running) as client,
    ):
        create = client.chat.completions.with_raw_response.create
        first = create(model="m", messages=asking("What?"))
        assert first.headers["x-ratelimit-limit-requests"] == "6000"
        assert first.headers["x-ratelimit-limit-tokens"] == "60000"
        assert first.headers["x-ratelimit-remaining-requests"] == "5999"
        assert first.headers["x-ratelimit-reset-tokens"].endswith("s")
        usage = first.parse().usage
        assert usage is not None
        with pytest.raises(openai.RateLimitError) as caught:
            create(model="m", messages=asking("What?"), max_tokens=59_950)
        error = caught.value
        assert (error.code, error.type, error.param) == ("rate_limit_exceeded", "tokens", None)
        reserved = usage.prompt_tokens + 59_950
        assert f"Requested {reserved}. Please try again in " in error.message
        headers = error.response.headers
        seconds, milliseconds = int(headers["retry-after"]), int(headers["retry-after-ms"])
        assert seconds - 1 < milliseconds / 1000 <= seconds
        if style != "bucket":
            assert int(headers["x-ratelimit-remaining-tokens"]) == 60_000 - usage.total_tokens
        with pytest.raises(openai.RateLimitError, match="Request too large") as caught:
            create(model="m", messages=asking("What?"), max_tokens=60_000)
        assert "retry-after" not in caught.value.response.headers
        stats = running.stats()
        assert (stats.requests, stats.admitted, stats.rejected_429) == (3, 1, 2)
        assert stats.by_status == {200: 1, 429: 2}


def test_a_request_limit_names_requests_and_a_reset_fills_it() -> None:
    with (
        Simulator(SimulatorConfig(latency=0.0, rpm=1, window=600.0)) as running,
        calling(running) as client,
    ):
        for _ in range(10):
            client.chat.completions.create(model="m", messages=asking("What?"))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=asking("What?"))
        assert caught.value.type == "requests"
        running.reset()
        client.chat.completions.create(model="m", messages=asking("What?"))
        assert running.stats().requests == 1


# Counters, clients that leave, and the life of the server


def test_counters_can_be_asked_and_reset_over_http(simulator: Simulator) -> None:
    async def fetch(method: str, path: str) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, simulator.root + path) as response,
        ):
            return await response.json()

    with calling(simulator) as client:
        done = client.chat.completions.create(model="m", messages=asking("What?"))
        models = [model.id for model in client.models.list()]
    assert done.usage is not None
    expected = {
        "requests": 1,
        "admitted": 1,
        "rejected_429": 0,
        "prompt_tokens": done.usage.prompt_tokens,
        "completion_tokens": done.usage.completion_tokens,
        "in_flight": 0,
        "max_in_flight": 1,
        "by_status": {"200": 1},
        "struck": 0,
    }
    told = asyncio.run(fetch("GET", "/stats"))
    assert told.pop("cpu_seconds") > 0
    assert told == expected
    assert asyncio.run(fetch("POST", "/reset"))["requests"] == 0
    assert simulator.stats().admitted == 0
    assert asyncio.run(fetch("GET", "/health")) == {"status": "ok"}
    assert models == ["sim-large", "sim-small"]


@pytest.fixture
def slow(files: tuple[Path, Path]) -> Iterator[Simulator]:
    """Its answer to the long question takes more than a minute; the first token comes soon."""
    config = SimulatorConfig(groups=files[0], answers=files[1], latency=0.5, tpm=10**6, window=3600.0)
    with Simulator(config) as running:
        yield running


def test_a_client_that_leaves_a_stream_pays_for_what_was_produced(slow: Simulator) -> None:
    async def leave() -> str:
        body = {"model": "m", "messages": asking("Tell me everything."), "stream": True, "max_tokens": 19_000}
        async with aiohttp.ClientSession() as session, session.post(chat_url(slow), json=body) as response:
            assert slow.stats().in_flight == 1
            return (await response.content.readline()).decode()

    assert asyncio.run(leave()).startswith("data: {")
    assert slow.wait_idle(30)
    stats = slow.stats()
    assert (stats.in_flight, stats.max_in_flight, stats.by_status) == (0, 1, {499: 1})
    assert stats.prompt_tokens == count("Be brief. Tell me everything.") + 11
    assert 0 < stats.completion_tokens < 19_000
    assert _tokens_used(slow) == stats.prompt_tokens + stats.completion_tokens


def _tokens_used(running: Simulator) -> int:
    """Tokens the quota holds as used, read from the headers of a request that is too large."""
    with calling(running) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=asking("?"), max_tokens=10**9)
        headers = caught.value.response.headers
    return int(headers["x-ratelimit-limit-tokens"]) - int(headers["x-ratelimit-remaining-tokens"])


def test_a_client_that_leaves_a_plain_request_is_let_go(slow: Simulator) -> None:
    async def leave() -> None:
        body = {"model": "m", "messages": asking("Tell me everything.")}
        waiting = asyncio.create_task(_status(slow, body))
        while slow.stats().admitted == 0:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert slow.wait_idle(30)
    assert slow.stats().by_status == {499: 1}
    assert slow.stats().completion_tokens < 20_000


async def _status(running: Simulator, body: Any) -> int:
    async with aiohttp.ClientSession() as session, session.post(chat_url(running), json=body) as response:
        return response.status


def chat_url(running: Simulator) -> str:
    return f"{running.url}/chat/completions"


def test_concurrent_requests_are_counted_in_flight(slow: Simulator) -> None:
    async def three() -> None:
        body = {"model": "m", "messages": asking("Tell me everything.")}
        waiting = [asyncio.create_task(_status(slow, body)) for _ in range(3)]
        while slow.stats().admitted < 3:
            await asyncio.sleep(0)
        assert slow.stats().in_flight == 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(three())
    assert slow.wait_idle(30)
    assert slow.stats().max_in_flight == 3


def test_a_stop_ends_what_is_in_flight_and_a_start_begins_again(files: tuple[Path, Path]) -> None:
    running = Simulator(SimulatorConfig(groups=files[0], answers=files[1])).start()

    async def interrupted() -> None:
        body = {"model": "m", "messages": asking("Tell me everything.")}
        waiting = asyncio.create_task(_status(running, body))
        while running.stats().admitted == 0:
            await asyncio.sleep(0)
        await asyncio.to_thread(running.stop)
        with pytest.raises(aiohttp.ClientError):
            await waiting

    asyncio.run(interrupted())
    assert running.stats().in_flight == 0
    running.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.url
    with running:
        assert asyncio.run(_status(running, {"model": ""})) == 400


def test_a_port_in_use_and_limits_that_make_no_sense_are_errors_at_start(simulator: Simulator) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="address"):
            Simulator(SimulatorConfig(port=taken.getsockname()[1])).start()
    with pytest.raises(ConfigError, match="requests"):
        Simulator(SimulatorConfig(rpm=1, window=1.0)).start()
    with pytest.raises(ConfigError, match="latency"):
        SimulatorConfig(latency=-1.0)
    with pytest.raises(RuntimeError, match="already"):
        simulator.start()


def test_without_aiohttp_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "dispatch_core.simulate.server", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'ai-dispatcher\[simulate\]'"):
        Simulator().start()


def test_the_command_serves_until_it_is_told_to_stop(files: tuple[Path, Path]) -> None:
    code = "import sys; from dispatch_core.simulate import main; sys.exit(main(sys.argv[1:]))"
    options = ["--port", "0", "--tpm", "5000", "--style", "bucket", "--latency", "0"]
    options += ["--questions", str(files[0]), "--answers", str(files[1])]
    with subprocess.Popen([sys.executable, "-c", code, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            url = next(word for word in words if word.startswith("http://"))
            with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
                done = client.chat.completions.create(model="m", messages=asking("What is the capital of France?"))
            assert done.choices[0].message.content == PARIS
        finally:
            process.terminate()
        assert process.wait(30) == 0


def test_the_command_says_why_it_could_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rpm", "1", "--window", "1"]) == 2
    assert "requests" in capsys.readouterr().err


def test_requests_are_logged_without_their_text(caplog: pytest.LogCaptureFixture) -> None:
    config = SimulatorConfig(latency=0.0, log_requests=True)
    with caplog.at_level(logging.INFO), Simulator(config) as running, calling(running) as client:
        client.chat.completions.create(model="m", messages=asking("What is secret?"))
    assert "POST /v1/chat/completions 200" in caplog.text
    assert "secret" not in caplog.text
