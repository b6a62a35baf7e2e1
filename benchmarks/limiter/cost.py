"""What admission itself costs, in seconds of the processor: ``python -m benchmarks.limiter.cost``.

Nobody ever waits in the first table: limits are so high that every call is admitted at once. The contestants take
turns, so that whatever else the computer does hits all of them, and only the thread's own time counts; the median of
the rounds is shown. The second table queues thousands of calls behind a full limiter, then lets them in one by one,
in virtual time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from statistics import median
from typing import Any

from benchmarks.limiter.clock import in_virtual_time, virtual_now
from benchmarks.limiter.limiters import LIMITERS
from dispatch_core import Cost, TokenLimiter, Usage

_PLENTY = 1e12
_QUEUES = (100, 1_000, 10_000)
# Twelve thousand calls a minute, and sixty.
_OFTEN, _SELDOM = 0.005, 1.0
_UNDER_WAY = 100
_COST, _USAGE = Cost(600, 200), Usage(600, 100)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to admit and finish a call. One of ``sync`` and ``async_`` is given."""

    title: str
    sync: Callable[[], object] | None = None
    async_: Callable[[], Awaitable[object]] | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter.cost", description=__doc__)
    parser.add_argument("--calls", type=int, default=5_000, help="calls per round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    print(f"{'uncontended, reserve + settle':<44}{'ns per call':>12}")
    for title, nanoseconds in asyncio.run(uncontended(options.calls, options.rounds)).items():
        print(f"  {title:<42}{nanoseconds:>12,.0f}")
    print(f"\n{'queued behind a full limiter':<30}{'bytes per waiter':>18}{'µs per admission':>18}")
    for waiters in _QUEUES:
        crowd = crowded(waiters)
        print(f"  {waiters:>10,} tasks{'':<12}{crowd.memory:>18,.0f}{crowd.admission * 1e6:>18,.1f}")


async def uncontended(calls: int, rounds: int) -> Mapping[str, float]:
    """Nanoseconds per call, the median of the rounds."""
    contestants = _contestants()
    samples: dict[str, list[float]] = {contestant.title: [] for contestant in contestants}
    gc.disable()
    try:
        for _ in range(rounds + 1):
            for contestant in contestants:
                samples[contestant.title].append(await _timed(contestant, calls))
    finally:
        gc.enable()
    # The first round warms up.
    return {title: median(values[1:]) for title, values in samples.items()}


async def _timed(contestant: Contestant, calls: int) -> float:
    sync, async_ = contestant.sync, contestant.async_
    began = time.thread_time_ns()
    if sync is not None:
        for _ in range(calls):
            sync()
    elif async_ is not None:
        for _ in range(calls):
            await async_()
    return (time.thread_time_ns() - began) / calls


def _contestants() -> list[Contestant]:
    contestants = [*_ours()]
    peers: Mapping[str, Callable[[], list[Contestant]]] = {
        "langchain": _langchain,
        "aiolimiter": _aiolimiter,
        "llama-index": _llama_index,
    }
    for name, build in peers.items():
        if LIMITERS[name].installed:
            contestants += build()
    return contestants


def _ours() -> list[Contestant]:
    limiter, sparse, busy = (_calls_every(seconds) for seconds in (_OFTEN, _SELDOM, _OFTEN))
    under_way = deque(busy.acquire(_COST) for _ in range(_UNDER_WAY))

    def with_() -> None:
        with limiter.reserve(_COST) as reservation:
            reservation.settle(_USAGE)

    async def async_with() -> None:
        async with limiter.reserve(_COST) as reservation:
            reservation.settle(_USAGE)

    def bare() -> None:
        limiter.acquire(_COST).settle(_USAGE)

    async def async_bare() -> None:
        (await limiter.aacquire(_COST)).settle(_USAGE)

    def seldom() -> None:
        with sparse.reserve(_COST) as reservation:
            reservation.settle(_USAGE)

    def later() -> None:
        under_way.popleft().settle(_USAGE)
        under_way.append(busy.acquire(_COST))

    return [
        Contestant("ours, with reserve", sync=with_),
        Contestant("ours, acquire", sync=bare),
        Contestant("ours, async with reserve", async_=async_with),
        Contestant("ours, aacquire", async_=async_bare),
        Contestant("ours, acquire, 100 calls under way", sync=later),
        Contestant("ours, with reserve, a call a second", sync=seldom),
    ]


def _calls_every(seconds: float) -> TokenLimiter:
    """A limiter whose clock goes on by so much whenever it is read, which is once a call: so its log is as long, and
    turns over as often, on any computer."""
    return TokenLimiter(rpm=_PLENTY, tpm=_PLENTY, clock=count(0.0, seconds).__next__)


def _langchain() -> list[Contestant]:
    build: Any = import_module("langchain_core.rate_limiters").InMemoryRateLimiter
    limiter = build(requests_per_second=_PLENTY, max_bucket_size=_PLENTY)
    return [
        Contestant("LangChain acquire, requests only", sync=limiter.acquire),
        Contestant("LangChain aacquire, requests only", async_=limiter.aacquire),
    ]


def _aiolimiter() -> list[Contestant]:
    build: Any = import_module("aiolimiter").AsyncLimiter
    requests, tokens = build(_PLENTY, 60), build(_PLENTY, 60)

    async def both() -> None:
        await requests.acquire()
        await tokens.acquire(800)

    return [Contestant("aiolimiter ×2", async_=both)]


def _llama_index() -> list[Contestant]:
    build: Any = import_module("llama_index.core.rate_limiter").TokenBucketRateLimiter
    limiter = build(requests_per_minute=_PLENTY, tokens_per_minute=_PLENTY)

    async def acquire() -> None:
        await limiter.async_acquire(800)

    return [
        Contestant("llama-index acquire", sync=lambda: limiter.acquire(800)),
        Contestant("llama-index async_acquire", async_=acquire),
    ]


@dataclass(frozen=True, slots=True)
class Crowd:
    """``memory``: bytes per waiting task, the task included; ``admission``: processor seconds per call let in."""

    memory: float
    admission: float


def crowded(waiters: int) -> Crowd:
    """Fill a limiter, queue ``waiters`` tasks behind it, and let virtual time bring all their turns."""
    return Crowd(in_virtual_time(_memory(waiters)), in_virtual_time(_admission(waiters)))


async def _memory(waiters: int) -> float:
    limiter = await _full()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = await _queue(limiter, waiters)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return used / waiters


async def _admission(waiters: int) -> float:
    limiter = await _full()
    tasks = await _queue(limiter, waiters)
    began = time.thread_time()
    await asyncio.gather(*tasks)
    return (time.thread_time() - began) / waiters


async def _full() -> TokenLimiter:
    limiter = TokenLimiter(tpm=60_000, clock=virtual_now)
    await limiter.aacquire(Cost(2_000))
    return limiter


async def _queue(limiter: TokenLimiter, waiters: int) -> list[asyncio.Task[None]]:
    async def one() -> None:
        (await limiter.aacquire(Cost(100))).settle(Usage(100))

    activities: list[Coroutine[Any, Any, None]] = [one() for _ in range(waiters)]
    tasks = [asyncio.create_task(activity) for activity in activities]
    await asyncio.sleep(0)
    return tasks


if __name__ == "__main__":
    main()
