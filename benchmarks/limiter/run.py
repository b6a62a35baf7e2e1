"""One run: a scenario, a style, a limiter and a seed in; numbers out. Deterministic."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.limiter.adapters import Adapter, GaveUp, Settings
from benchmarks.limiter.clock import START, in_virtual_time, virtual_now
from benchmarks.limiter.limiters import LIMITERS
from benchmarks.limiter.provider import Oracle, Provider, Response, Tally
from benchmarks.limiter.styles import Style
from benchmarks.limiter.workload import Request, Scenario, means, requests
from dispatch_core import LimitError
from dispatch_core.simulate.quota import Quota

_DRAIN = 120.0


@dataclass(frozen=True, slots=True)
class Job:
    scenario: Scenario
    style: Style
    limiter: str
    seed: int
    ours: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run gave. Shares are in percent, times in seconds.

    ``utilisation``: tokens really used by the calls that were let in during the measured span ÷ what the quota grants
    in it; another tenant's tokens count as used. ``throttled``: 429s ÷ attempts. ``p50`` and ``p99``: from the
    intended arrival to the answer; ``wait_p99`` and, for the big calls alone, ``big_wait_p99``: from the intended
    arrival to the instant the provider let the call in. Calls that intended to start in the span count, those still
    open two minutes after its end with their age. ``fairness``: Jain's index over answers per client, 1 is even.
    ``failed``: calls given up after all tries, ``refused``: those the limiter would not take, ÷ calls.
    """

    utilisation: float
    throttled: float
    p50: float
    p99: float
    wait_p99: float
    big_wait_p99: float
    fairness: float
    failed: float
    refused: float
    calls: int


@dataclass(slots=True)
class _Call:
    """One call under way: what the client intended, and what became of it."""

    request: Request
    intended: float
    decided: float = math.nan
    answered: float = math.nan
    outcome: str = "open"


def run(job: Job) -> Result:
    return in_virtual_time(_World(job).run())


class _World:
    """The clients, their limiter and the provider. Lives inside one virtual loop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scenario = job.scenario
        self._begin = START + job.scenario.warmup
        self._end = self._begin + job.scenario.measured
        self._calls: list[_Call] = []
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> Result:
        scenario, job = self._scenario, self._job
        spec = LIMITERS[job.limiter]
        tally = Tally(self._begin, self._end)
        quota = Quota(style=job.style, rpm=scenario.rpm, tpm=scenario.tpm, start=START)
        kind = Oracle if spec.oracle else Provider
        self._provider = kind(quota, tally, seed=job.seed, clock=virtual_now)
        self._mean = means(scenario).actual
        self._adapter: Adapter = spec.build(self._settings())
        tasks = [asyncio.create_task(activity) for activity in self._activities()]
        await asyncio.wait(tasks, timeout=self._end + _DRAIN - virtual_now())
        rest = [*tasks, *self._running]
        if self._running:
            await asyncio.wait(self._running, timeout=max(0.0, self._end + _DRAIN - virtual_now()))
        for task in rest:
            task.cancel()
        done = await asyncio.gather(*rest, return_exceptions=True)
        for outcome in done:
            if isinstance(outcome, Exception):
                raise outcome
        return _summary(scenario, tally, [c for c in self._calls if self._begin <= c.intended < self._end])

    def _settings(self) -> Settings:
        scenario, job = self._scenario, self._job
        return Settings(
            rpm=scenario.rpm * scenario.configured,
            tpm=scenario.tpm * scenario.configured,
            style=job.style,
            mean_tokens=self._mean,
            clock=virtual_now,
            rng=random.Random(f"limiter/{job.seed}"),
            timeout=scenario.timeout,
            ours=job.ours,
        )

    def _activities(self) -> list[Any]:
        if self._scenario.open_rate is None:
            activities: list[Any] = [self._client(index) for index in range(self._scenario.clients)]
        else:
            activities = [self._arrivals(self._scenario.open_rate, self._one)]
        if self._scenario.foreign:
            activities.append(self._arrivals(self._scenario.foreign, self._foreign, client=-2))
        return activities

    async def _client(self, index: int) -> None:
        """Ask, wait for the answer, think, ask again."""
        rng = random.Random(f"think/{self._job.seed}/{index}")
        stream = requests(self._scenario, self._job.seed, index)
        await asyncio.sleep(rng.random())
        while virtual_now() < self._end:
            await self._one(next(stream))
            if self._scenario.think:
                await asyncio.sleep(rng.expovariate(1 / self._scenario.think))

    async def _arrivals(self, load: float, serve: Callable[[Request], Any], client: int = -3) -> None:
        """Poisson arrivals that ask for ``load`` times the token quota, whether or not earlier ones are done."""
        rng = random.Random(f"arrivals/{self._job.seed}/{client}")
        stream = requests(self._scenario, self._job.seed, client)
        rate = load * self._scenario.tpm / 60 / self._mean
        while virtual_now() < self._end:
            await asyncio.sleep(rng.expovariate(rate))
            task = asyncio.create_task(serve(next(stream)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _foreign(self, request: Request) -> None:
        await self._provider.send(request, foreign=True)

    async def _one(self, request: Request) -> None:
        call = _Call(request, virtual_now())
        self._calls.append(call)

        async def send(request: Request) -> Response:
            response = await self._provider.send(request)
            call.decided = response.decided
            return response

        try:
            await self._adapter.call(request, send)
            call.outcome = "answered"
        except GaveUp:
            call.outcome = "failed"
        except LimitError:
            call.outcome = "refused"
        call.answered = virtual_now()


def _summary(scenario: Scenario, tally: Tally, calls: Sequence[_Call]) -> Result:
    over = START + scenario.warmup + scenario.measured + _DRAIN
    answered = [c for c in calls if c.outcome == "answered"]
    waiting = [c for c in calls if c.outcome == "open"]
    times = [c.answered - c.intended for c in answered] + [over - c.intended for c in waiting]
    waits = [(c.request, c.decided - c.intended) for c in answered]
    waits += [(c.request, over - c.intended) for c in waiting]
    count = max(1, len(calls))
    return Result(
        utilisation=100 * (tally.tokens + tally.foreign_tokens) / (scenario.tpm / 60 * scenario.measured),
        throttled=100 * tally.throttled / max(1, tally.attempts),
        p50=percentile(times, 50),
        p99=percentile(times, 99),
        wait_p99=percentile([wait for _, wait in waits], 99),
        big_wait_p99=percentile([wait for request, wait in waits if request.reserved >= scenario.big], 99),
        fairness=jain(scenario, answered),
        failed=100 * sum(c.outcome == "failed" for c in calls) / count,
        refused=100 * sum(c.outcome == "refused" for c in calls) / count,
        calls=len(calls),
    )


def jain(scenario: Scenario, answered: Sequence[_Call]) -> float:
    """1 when every client got as many answers as every other, 1 ÷ clients when one got them all."""
    if scenario.open_rate is not None:
        return math.nan
    served = [0] * scenario.clients
    for call in answered:
        served[call.request.client] += 1
    squares = sum(n * n for n in served)
    return sum(served) ** 2 / (len(served) * squares) if squares else math.nan


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of the values do not exceed; nan of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
