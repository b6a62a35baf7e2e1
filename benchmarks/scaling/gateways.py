"""One gateway, then two with one Redis before one provider: whose answers they find, whose quota they spend."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.server import program, served
from dispatch_core.simulate import Simulator, SimulatorConfig

RPM = 600
QUESTIONS, PAIRS, HITS, ASKERS = 200, 60, 3_000, 20


class Gateway(NamedTuple):
    url: str
    pid: int


class Shared(NamedTuple):
    """Of ``QUESTIONS`` answered by one gateway, how many another one found; the provider's calls for each of
    ``PAIRS`` questions asked of both at once; milliseconds of processor time of a gateway's exact hit."""

    found: int
    calls: float
    hit: float


class Spent(NamedTuple):
    """In the last minute: calls answered, each gateway's, and the provider's 429s from the beginning."""

    answered: list[int]
    refused: int

    @property
    def share(self) -> float:
        return sum(self.answered) / RPM


def shared() -> Shared:
    provider = Simulator(SimulatorConfig(latency=0.1))
    with provider, served(program()) as server, _gateways(2, server.url, provider.url) as (one, other):
        return asyncio.run(_shared(one, other, provider))


def spent(gateways: int, seconds: float = 90.0) -> Spent:
    """``ASKERS`` at each gateway who ask anew as soon as they were answered, which is more than the quota."""
    provider = Simulator(SimulatorConfig(rpm=RPM, latency=0.1))
    with provider, served(program()) as server, _gateways(gateways, server.url, provider.url) as running:
        answered = asyncio.run(_demanded(running, seconds))
        return Spent(answered, provider.stats().rejected_429)


async def _shared(one: Gateway, other: Gateway, provider: Simulator) -> Shared:
    async with aiohttp.ClientSession() as session:
        for number in range(QUESTIONS):
            await _asked(session, one, f"question {number}", "free")
        await asyncio.sleep(1.0)  # answers are written in the background
        told = [await _asked(session, other, f"question {number}", "free") for number in range(QUESTIONS)]
        before = provider.stats().requests
        for number in range(PAIRS):
            await asyncio.gather(*(_asked(session, each, f"pair {number}", "free") for each in (one, other)))
        calls = (provider.stats().requests - before) / PAIRS
        busy = _processor(one.pid)
        for _ in range(HITS):
            await _asked(session, one, "question 1", "free")
        hit = 1e3 * (_processor(one.pid) - busy) / HITS
    return Shared(sum("hit" in one for one in told), calls, hit)


async def _demanded(gateways: Sequence[Gateway], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    counts = [0] * len(gateways)

    async def asker(which: int, who: int) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            await _asked(session, gateways[which], f"asker {which} {who} question {number}", "tight")
            counts[which] += end - 60.0 < time.monotonic() < end

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(asker(which, who) for which in range(len(gateways)) for who in range(ASKERS)))
    return counts


async def _asked(session: aiohttp.ClientSession, gateway: Gateway, question: str, model: str) -> str:
    body = {"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": question}]}
    async with session.post(f"{gateway.url}/chat/completions", json=body) as response:
        if response.status != 200:
            raise SystemExit(f"status {response.status}: {await response.text()}")
        await response.read()
        return response.headers["cache-status"]


@contextmanager
def _gateways(count: int, redis: str, provider: str) -> Iterator[list[Gateway]]:
    """Processes of `dispatcher serve`. Without an embedder, for what is shared does not depend on one."""
    upstream = {"base_url": provider, "api_key": "none"}
    settings = {
        "cache": {"url": f"{redis}?index=near", "embedder": "none", "lease": 30},
        "quota": {"redis": redis, "replicas": 2},
        "models": {
            "free": [{"name": "free", **upstream, "limits": {"rpm": 1e9}}],
            "tight": [{"name": "tight", **upstream, "limits": {"rpm": RPM}}],
        },
    }
    with ExitStack() as ends, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "dispatch.yaml")
        file.write_text(json.dumps(settings), "utf-8")
        words = [sys.executable, "-m", "dispatch_gateway", "--config", str(file), "--port", "0"]
        words += ["--log-level", "warning"]
        started = []
        for _ in range(count):
            process = ends.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            ends.callback(process.terminate)
            assert process.stdout is not None
            started.append(Gateway(process.stdout.readline().split()[-1], process.pid))
        yield started


def _processor(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
