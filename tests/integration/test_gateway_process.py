"""The gateway as a process: started, told to drain, to read its settings anew, beside another on one Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateways import Client, Process, deployment, eventually, to
from servers import Server
from upstreams import Upstream, held, says

from dispatch_core.__main__ import main
from dispatch_gateway.config import hash_of

SECRET = "key-of-ann-0123456789"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def asking(what: str = "a cat", **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"How do I greet {what}?"}], **options}


def plain(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    return {"models": to(upstream.url), "cache": {"embedder": "none"}, **settings}


async def status_of(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(url) as response:
        return response.status, (await response.json())["status"]


async def until_it_says(session: aiohttp.ClientSession, url: str, said: tuple[int, str]) -> None:
    async with asyncio.timeout(30):
        while await status_of(session, url) != said:
            await asyncio.sleep(0.01)


async def test_without_any_settings_it_asks_the_upstream_of_the_environment(
    upstream: Upstream, session: Any, tmp_path: Path
) -> None:
    # As if no embedding model were installed; loading one takes long.
    without = "import sys\nsys.modules['sentence_transformers'] = sys.modules['onnxruntime'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(without)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "OPENAI_API_KEY": "secret"}
    with Process(tmp_path, OPENAI_BASE_URL=upstream.url, **env) as gateway:
        client = Client(session, gateway.url)
        for _ in range(2):
            status, headers, _ = await client.ask(asking())
            assert status == 200
        assert "hit" in headers["cache-status"]
        assert gateway.url.startswith("http://127.0.0.1:")
        gateway.signal(signal.SIGINT)
        code, log = gateway.end()
    assert code == 0
    assert upstream.seen[0].headers["authorization"] == "Bearer secret"
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["outcome"] for line in lines if line["message"] == "request"] == ["miss", "exact_hit"]
    assert "matched by their words alone" in lines[0]["message"]
    assert "secret" not in log
    assert "greet" not in log, "no word of a prompt is logged"


async def test_told_to_stop_it_finishes_what_is_under_way_and_takes_nothing_new(
    upstream: Upstream, session: Any, tmp_path: Path
) -> None:
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    with Process(tmp_path, plain(upstream)) as gateway:
        client = Client(session, gateway.url)
        whole = asyncio.create_task(client.ask(asking("a cat")))
        stream = asyncio.create_task(client.ask(asking("a dog", stream=True)))
        async with asyncio.timeout(30):
            while len(upstream.seen) < 2:
                await asyncio.sleep(0.01)
        assert await status_of(session, f"{gateway.root}/health/ready") == (200, "ok")
        gateway.signal(signal.SIGTERM)
        await until_it_says(session, f"{gateway.root}/health/ready", (503, "draining"))
        status, headers, _ = await client.ask(asking("a bird"))
        assert (status, headers["retry-after"]) == (503, "1")
        may_answer.set()
        assert (await whole)[0] == 200
        assert (await stream)[2].endswith("data: [DONE]\n\n")
        assert gateway.end()[0] == 0


async def test_what_outlasts_the_drain_is_cut_off(upstream: Upstream, session: Any, tmp_path: Path) -> None:
    upstream.usual = held(threading.Event(), says("yes"))
    with Process(tmp_path, plain(upstream, timeouts={"drain": 0.2})) as gateway:
        asked = asyncio.create_task(Client(session, gateway.url).ask(asking()))
        await eventually(lambda: bool(upstream.seen))
        gateway.signal(signal.SIGTERM)
        assert (await asyncio.to_thread(gateway.end))[0] == 1
        status, _, body = await asked
        assert (status, body["error"]["code"]) == (503, "shutting_down")


async def test_a_second_signal_cuts_off_and_the_exit_code_says_so(
    upstream: Upstream, session: Any, tmp_path: Path
) -> None:
    upstream.usual = held(threading.Event(), says("yes"))
    with Process(tmp_path, plain(upstream, timeouts={"drain": 600})) as gateway:
        asked = asyncio.create_task(Client(session, gateway.url).ask(asking()))
        await eventually(lambda: bool(upstream.seen))
        gateway.signal(signal.SIGTERM)
        await until_it_says(session, f"{gateway.root}/health/ready", (503, "draining"))
        gateway.signal(signal.SIGTERM)
        assert (await asyncio.to_thread(gateway.end))[0] == 1
        assert (await asked)[0] == 503


def test_a_port_that_is_taken_is_an_exit_code_of_1(tmp_path: Path, upstream: Upstream) -> None:
    taken = int(upstream.url.rpartition(":")[2].partition("/")[0])
    file = tmp_path / "dispatch.yaml"
    file.write_text("cache: {embedder: none}\n")
    words = [sys.executable, "-m", "dispatch_gateway", "--config", str(file), "--port", str(taken)]
    assert subprocess.run(words, check=False, capture_output=True, timeout=60).returncode == 1


async def test_limits_and_keys_are_read_anew_and_settings_that_cannot_work_change_nothing(
    upstream: Upstream, session: Any, tmp_path: Path
) -> None:
    with Process(tmp_path, plain(upstream)) as gateway:
        client = Client(session, gateway.url)
        assert (await client.ask(asking("a cat")))[0] == 200
        gateway.write({"models": "nonsense"})
        gateway.signal(signal.SIGHUP)
        locked = plain(upstream, keys=[{"name": "ann", "hash": hash_of(SECRET)}])
        gateway.write(locked | {"listen": {"port": 1}})
        gateway.signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            while (await client.ask(asking("a cat")))[0] != 401:
                await asyncio.sleep(0.01)
        assert (await client.ask(asking("a dog"), authorization=f"Bearer {SECRET}"))[0] == 200
        gateway.signal(signal.SIGTERM)
        code, log = gateway.end()
    said = [json.loads(line)["message"] for line in log.splitlines()]
    assert code == 0
    assert "keys, models and limits were read anew" in said


async def test_two_replicas_share_cache_and_quota(
    upstream: Upstream, session: Any, tmp_path: Path, redis_like_url: str
) -> None:
    url = f"{redis_like_url}?socket_timeout=5"
    settings = {
        "models": {"m": [deployment(upstream.url, limits={"rpm": 6, "burst": 60})]},
        "cache": {"embedder": "none", "url": f"{url}&index=near"},
        "quota": {"redis": url},
        "timeouts": {"queue": 0.05},
    }
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with Process(folders[0], settings) as one, Process(folders[1], settings) as two:
        clients = [Client(session, one.url), Client(session, two.url)]
        assert (await clients[0].ask(asking("a cat")))[0] == 200
        async with asyncio.timeout(30):
            # Written behind the answer.
            while (await clients[1].ask(asking("a cat"), cache_control="only-if-cached"))[0] != 200:
                await asyncio.sleep(0.01)
        assert len(upstream.seen) == 1
        statuses = [(await clients[n % 2].ask(asking(f"dog {n}")))[0] for n in range(10)]
        assert statuses.count(200) == 5
        assert len(upstream.seen) == 6
        one.signal(signal.SIGKILL)
        assert one.end()[0] == -signal.SIGKILL
        assert "hit" in (await clients[1].ask(asking("a cat")))[1]["cache-status"]
        assert (await clients[1].ask(asking("a bird")))[0] == 429, "what the other used is still used"


async def test_while_redis_is_away_calls_go_on_within_a_part_of_the_limits(
    upstream: Upstream, session: Any, tmp_path: Path, own_server: Server
) -> None:
    url = f"{own_server.url}?socket_timeout=1"
    settings = {
        "models": {"m": [deployment(upstream.url, limits={"rpm": 40, "burst": 60})]},
        "cache": {"embedder": "none", "url": f"{url}&index=near"},
        "quota": {"redis": url, "replicas": 2},
        "timeouts": {"queue": 0.05},
    }
    with Process(tmp_path, settings) as gateway:
        client = Client(session, gateway.url)
        assert (await client.ask(asking("a cat")))[0] == 200
        own_server.stop()
        await until_it_says(session, f"{gateway.root}/health/ready", (200, "degraded"))
        statuses = [(await client.ask(asking(f"dog {n}")))[0] for n in range(60)]
        assert set(statuses) == {200, 429}
        assert len(upstream.seen) <= 40
        own_server.start()
        await until_it_says(session, f"{gateway.root}/health/ready", (200, "ok"))


def test_a_file_that_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "dispatch.yaml"
    file.write_text("models:\n  m:\n    - limits: {rmp: 60}\n")
    assert main(["serve", "--config", str(file), "--check"]) == 2
    assert capsys.readouterr().err == f"dispatcher serve: {file}: models.m[0].limits.rmp: there is no such setting\n"
    file.write_text("cache: {embedder: none}\nmodels:\n  m:\n    - limits: {rpm: 60}\n")
    assert main(["serve", "--config", str(file), "--check"]) == 0
    assert main(["serve", "--config", str(file), "--check", "--host", "0.0.0.0"]) == 2
    assert "keys: needed to listen on 0.0.0.0" in capsys.readouterr().err
    file.write_text("cache: {embedder: none}\ncompression: {'*': {steps: extractive}}\n")
    assert main(["serve", "--config", str(file), "--check"]) == 2
    assert "compression.*.steps[0]: extractive needs an embedding model" in capsys.readouterr().err


def test_a_new_key_comes_with_the_hash_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--new-key"]) == 0
    key, hashed = (line.split()[1] for line in capsys.readouterr().out.splitlines())
    assert hash_of(key) == hashed
