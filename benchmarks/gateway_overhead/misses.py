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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from benchmarks.cpu import cpu_seconds
from benchmarks.gateway_overhead.servers import started, unlimited

_SYSTEM = "You are a helpful assistant of a bank. Answer briefly and politely. " * 3
ARMS = ("direct", "proxy", "gateway")


@dataclass(frozen=True, slots=True)
class Round:
    """One pass: the seconds that each question took, questions per second, CPU seconds of the process for each."""

    took: Sequence[float]
    rate: float
    cpu: float


async def _pass(url: str, requests: int, in_flight: int, tag: str, process: int | None) -> Round:
    took = [0.0] * requests
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
                took[number] = time.perf_counter() - start

        await asyncio.gather(*(worker() for _ in range(in_flight)))
    spent = time.perf_counter() - begun
    cpu = 0.0 if process is None else cpu_seconds(process) - before
    return Round(took, requests / spent, cpu / requests)


def body_of(question: str) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 200}).encode()


def measured(
    latency: float, *, spread: float = 0.0, requests: int, rounds: int, in_flight: int
) -> dict[str, list[Round]]:
    """The arms in turns, with the same questions in one round and new ones in the next. The upstream takes so many
    seconds, more or less by the share ``spread``."""
    here = "benchmarks.gateway_overhead.servers"
    found: dict[str, list[Round]] = {name: [] for name in ARMS}
    with (
        started(here, "upstream", str(latency), str(spread)) as (upstream, _),
        started(here, "proxy", upstream) as (proxy, copying),
        unlimited(upstream, {"embedder": "none"}) as (gateway_url, serving),
    ):
        arms = {"direct": (upstream, None), "proxy": (proxy, copying), "gateway": (gateway_url, serving)}
        for number in range(rounds):
            for name, (base, process) in arms.items():
                url, tag = f"{base}/v1/chat/completions", f"{latency} {number}"
                found[name].append(asyncio.run(_pass(url, requests, in_flight, tag, process)))
    # The first round fills connections and memos.
    return {name: kept[1:] for name, kept in found.items()}


def latencies(measured: Mapping[str, Sequence[Round]]) -> str:
    """The median latency, and what was added to the same questions asked directly: the median of the differences."""
    lines = [f"{'':10}{'P50 ms':>10}{'added ms, P50':>16}{'P90':>8}"]
    for name in ARMS:
        took = [one for round in measured[name] for one in round.took]
        direct = [one for round in measured["direct"] for one in round.took]
        added = sorted(one - other for one, other in zip(took, direct, strict=True))
        tail = added[int(0.9 * len(added))]
        median, more = statistics.median(took), statistics.median(added)
        lines.append(f"{name:10}{median * 1000:10.2f}{more * 1000:16.2f}{tail * 1000:8.2f}")
    return "\n".join(lines)


def rates(measured: Mapping[str, Sequence[Round]]) -> str:
    lines = [f"{'':10}{'requests/s':>12}{'CPU ms':>9}{'/s on a core':>14}"]
    for name in ARMS:
        rate, cpu = (statistics.median(getattr(one, what) for one in measured[name]) for what in ("rate", "cpu"))
        shown = f"{cpu * 1000:9.2f}{1 / cpu:14.0f}" if cpu else ""
        lines.append(f"{name:10}{rate:12.0f}{shown}")
    return "\n".join(lines)
