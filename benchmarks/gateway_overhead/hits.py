"""Hits by meaning: a question asked in other words through a gateway, next to the bare embedding of those words."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import aiohttp

from benchmarks.demo.trace import load_questions
from benchmarks.gateway_overhead.misses import body_of
from benchmarks.gateway_overhead.servers import started, unlimited
from dispatch_core import default_embedder


@dataclass(frozen=True, slots=True)
class Pairs:
    """Medians in seconds of calls one by one, and how many questions were hits. ``http`` is what a call takes that
    asks for nothing."""

    embedding: float
    hit: float
    http: float
    hits: int
    asked: int

    def __str__(self) -> str:
        ratio = self.hit / self.embedding
        return (
            f"a hit by meaning: {self.hit * 1000:.2f} ms, the embedding alone {self.embedding * 1000:.2f} ms, "
            f"ratio {ratio:.2f} ({self.hits} hits of {self.asked} questions); "
            f"an HTTP call that asks for nothing {self.http * 1000:.2f} ms"
        )


async def measured(rounds: int) -> Pairs:
    """Each question is asked once, then over and over again as if typed in haste, and never twice alike, for what was
    read before is remembered: embed it here, ask it there."""
    embedder = default_embedder()
    firsts = [question.text for question in load_questions() if question.kind == "first" and question.lang == "en"]
    embedding, hit, http, hits, asked = [], [], [], 0, 0
    with (
        started("benchmarks.gateway_overhead.servers", "upstream", "0", "0") as (upstream, _),
        unlimited(upstream, {"embedder": "auto"}) as (url, _),
    ):
        async with aiohttp.ClientSession() as session:

            async def ask(question: str) -> str:
                headers = {"content-type": "application/json"}
                posting = session.post(f"{url}/v1/chat/completions", data=body_of(question), headers=headers)
                async with posting as response:
                    await response.read()
                    return response.headers["cache-status"]

            for question in firsts:
                await ask(question)
            for number in range(rounds):
                for question in firsts:
                    hasty = question.lower().rstrip("?") + "?" * number
                    begun = time.perf_counter()
                    embedder.embed([hasty])
                    between = time.perf_counter()
                    told = await ask(hasty)
                    ended = time.perf_counter()
                    async with session.get(f"{url}/health/live") as response:
                        await response.read()
                    http.append(time.perf_counter() - ended)
                    asked += 1
                    if 'detail="semantic"' in told:
                        hits += 1
                        embedding.append(between - begun)
                        hit.append(ended - between)
    median = statistics.median
    return Pairs(median(embedding), median(hit), median(http), hits, asked)
