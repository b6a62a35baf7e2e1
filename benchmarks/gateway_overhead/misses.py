"""Misses: latency at many calls under way, requests per second when the upstream takes no time, CPU per request.

The same client asks the upstream directly and through a gateway, in turns. Every question is new, and without an
embedding model nothing is compared by meaning. A proxy of the same parts (uvicorn, aiohttp) that only copies bytes
says what of that is theirs.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import aiohttp

from benchmarks.cpu import cpu_seconds
from benchmarks.gateway_overhead.servers import gateway, started

_SYSTEM = "You are a helpful assistant of a bank. Answer briefly and politely. " * 3
ARMS = ("direct", "proxy", "gateway")


@dataclass(frozen=True, slots=True)
class Round:
    """One pass: the median latency in seconds, requests per second, CPU seconds of the gateway per request."""

    median: float
    rate: float
    cpu: float


async def _pass(url: str, requests: int, in_flight: int, tag: str, process: int | None) -> Round:
    took: list[float] = []
    numbers = iter(range(requests))
    before = 0.0 if process is None else cpu_seconds(process)
    begun = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for number in numbers:
                body = body_of(f"Question {tag} {number}?")
                start = time.perf_counter()
                async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
                    await response.read()
                    if response.status != 200:
                        raise SystemExit(f"status {response.status}: {await response.text()}")
                took.append(time.perf_counter() - start)

        await asyncio.gather(*(worker() for _ in range(in_flight)))
    spent = time.perf_counter() - begun
    cpu = 0.0 if process is None else cpu_seconds(process) - before
    return Round(statistics.median(took), requests / spent, cpu / requests)


def body_of(question: str) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 200}).encode()


def measured(latency: float, *, requests: int, rounds: int, in_flight: int) -> dict[str, list[Round]]:
    """The arms in turns, each with new questions; ``latency`` is the upstream's, in seconds."""
    here = "benchmarks.gateway_overhead.servers"
    found: dict[str, list[Round]] = {name: [] for name in ARMS}
    with (
        started(here, "upstream", str(latency)) as (upstream, _),
        started(here, "proxy", upstream) as (proxy, copying),
        gateway(upstream, {"embedder": "none"}) as (gateway_url, serving),
    ):
        arms = {"direct": (upstream, None), "proxy": (proxy, copying), "gateway": (gateway_url, serving)}
        for number in range(rounds):
            for name, (base, process) in arms.items():
                url, tag = f"{base}/v1/chat/completions", f"{latency} {number}"
                found[name].append(asyncio.run(_pass(url, requests, in_flight, tag, process)))
    # The first round fills connections and memos.
    return {name: kept[1:] for name, kept in found.items()}


def table(slow: dict[str, list[Round]], fast: dict[str, list[Round]]) -> str:
    lines = [f"{'':10}{'p50 ms':>10}{'added ms':>10}{'requests/s':>12}{'CPU ms':>9}{'/s on a core':>14}"]
    alone = _median(slow["direct"], "median")
    for name in ARMS:
        p50, rate, cpu = _median(slow[name], "median"), _median(fast[name], "rate"), _median(fast[name], "cpu")
        shown = f"{cpu * 1000:9.2f}{1 / cpu:14.0f}" if cpu else ""
        lines.append(f"{name:10}{p50 * 1000:10.2f}{(p50 - alone) * 1000:10.2f}{rate:12.0f}{shown}")
    return "\n".join(lines)


def _median(rounds: list[Round], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))
