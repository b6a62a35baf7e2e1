"""Open-loop replay: every question is asked at its time, whatever became of those before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.demo.trace import Arrival, Question

Ask = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one arrival. ``seconds`` counts from the intended arrival, queue and retries included."""

    question: Question
    at: float
    seconds: float
    answer: str | None
    error: str | None


async def replay(trace: list[Arrival], ask: Ask, on_done: Callable[[], None]) -> list[Outcome]:
    """Ask every question of the trace at its time and wait for all answers."""
    start = time.perf_counter()

    async def one(arrival: Arrival) -> Outcome:
        await asyncio.sleep(arrival.at - (time.perf_counter() - start))
        answer: str | None = None
        error: str | None = None
        try:
            answer = await ask(arrival.question.text)
        except Exception as failure:
            # A failed call is a result of the bare arm; it is counted, not hidden.
            error = type(failure).__name__
        on_done()
        seconds = time.perf_counter() - start - arrival.at
        return Outcome(arrival.question, arrival.at, seconds, answer, error)

    return await asyncio.gather(*(one(arrival) for arrival in trace))
