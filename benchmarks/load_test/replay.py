"""The open loop: every question is asked at its time, whatever became of those before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from benchmarks.demo.trace import Arrival
from benchmarks.load_test.outcome import Asked

PATIENCE = 300.0
"""Seconds that a question may take; none comes near."""


async def replay(trace: Sequence[Arrival], url: str) -> list[Asked]:
    """Ask every question of the trace at its time, wait for all. Times count from the intended arrival."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        start = time.perf_counter()

        async def one(arrival: Arrival) -> Asked:
            await asyncio.sleep(arrival.at - (time.perf_counter() - start))
            late = time.perf_counter() - start - arrival.at
            async with session.post(f"{url}/ask", json={"question": arrival.question.text}) as response:
                told = await response.json()
            seconds = time.perf_counter() - start - arrival.at
            hit = bool(told.get("hit"))
            return Asked(seconds, response.status, told.get("answer"), hit, told.get("error"), late)

        return await asyncio.gather(*(one(arrival) for arrival in trace))
