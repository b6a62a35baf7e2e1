"""The virtual-time benchmark measures what it says: clocks, ways to count, limiters whose numbers are known."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from benchmarks.limiter.__main__ import main
from benchmarks.limiter.adapters import GaveUp, send_with_backoff
from benchmarks.limiter.article import ArticleBucket
from benchmarks.limiter.clock import START, Stuck, in_virtual_time, virtual_now
from benchmarks.limiter.cost import crowded, uncontended
from benchmarks.limiter.limiters import LIMITERS, Limiter
from benchmarks.limiter.provider import Oracle, Provider, Response, Tally
from benchmarks.limiter.run import Job, Result, percentile, run
from benchmarks.limiter.styles import STYLES, Style
from benchmarks.limiter.workload import MAX_TOKENS, SCENARIOS, Request, Scenario, means, requests
from dispatch_core.simulate.quota import Quota

CLOSED = next(scenario for scenario in SCENARIOS if scenario.name == "closed")
SHORT = replace(CLOSED, warmup=60.0, measured=120.0)


def measured(limiter: str, style: Style, scenario: Scenario = SHORT, seed: int = 1) -> Result:
    return run(Job(scenario, style, limiter, seed))


# The clock


def test_hours_pass_at_once_and_every_clock_agrees():
    async def sleeper() -> tuple[float, float, float]:
        wall, monotonic = time.time(), time.monotonic()
        await asyncio.sleep(7_200)
        return time.time() - wall, time.monotonic() - monotonic, virtual_now() - START

    began = time.monotonic()
    assert in_virtual_time(sleeper()) == pytest.approx((7_200, 7_200, 7_200))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("fails", [False, True])
def test_the_real_clocks_are_back_afterwards(fails):
    async def activity() -> None:
        await asyncio.sleep(1)
        if fails:
            raise ZeroDivisionError

    clocks = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns", "sleep")
    real = [getattr(time, name) for name in clocks]
    if fails:
        with pytest.raises(ZeroDivisionError):
            in_virtual_time(activity())
    else:
        in_virtual_time(activity())
    assert [getattr(time, name) for name in clocks] == real


def test_work_for_threads_is_done_in_place():
    async def threaded() -> float:
        return await asyncio.to_thread(lambda: virtual_now() - START)

    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.run(asyncio.to_thread(virtual_now))
    assert in_virtual_time(threaded()) == pytest.approx(0, abs=1e-3)


def test_a_lost_wake_up_and_a_blocking_sleep_are_errors():
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def blocking() -> None:
        time.sleep(1)

    with pytest.raises(Stuck):
        in_virtual_time(forever())
    with pytest.raises(RuntimeError, match="blocking"):
        in_virtual_time(blocking())


# The provider


@pytest.mark.parametrize("style", STYLES)
def test_a_refusal_carries_the_headers_of_the_api(style):
    async def ask() -> Response:
        quota = Quota(style=style, rpm=60, tpm=600, start=START)
        quota.admit(600, virtual_now())
        provider = Provider(quota, Tally(0, math.inf), seed=1, clock=virtual_now)
        return await provider.send(Request(0, 10, 5, 44, 1.0, max_tokens=10))

    response = in_virtual_time(ask())
    assert (response.status, response.usage) == (429, None)
    assert 0 < int(response.headers["retry-after-ms"]) <= 60_000
    assert int(response.headers["retry-after"]) == math.ceil(int(response.headers["retry-after-ms"]) / 1000)
    assert response.headers["x-ratelimit-remaining-tokens"] == "0"


# The workload


def test_the_numbers_in_the_description_of_the_workload_hold():
    stream = requests(CLOSED, 1, 0)
    drawn = [next(stream) for _ in range(20_000)]
    assert all(50 <= r.prompt_tokens <= 10_000 and 1 <= r.output_tokens <= MAX_TOKENS for r in drawn)
    mean = means(CLOSED)
    assert mean.actual == pytest.approx(1_036, rel=0.05)
    assert mean.service == pytest.approx(1.45, rel=0.05)
    demand = CLOSED.clients / (mean.service + 0.065) * mean.actual / (CLOSED.tpm / 60)
    assert demand == pytest.approx(3.5, rel=0.03)
    assert CLOSED.rpm * mean.actual > 1.3 * CLOSED.tpm, "tokens bind, not requests"


# Limiters whose numbers are known


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    first, again, other = (measured("ours", "second", replace(SHORT, measured=60.0), seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("style", STYLES)
def test_the_oracle_is_never_refused_and_wastes_nothing(style):
    result = measured("oracle", style, replace(SHORT, warmup=120.0, measured=240.0))
    assert result.throttled == 0
    assert result.failed == 0
    assert result.utilisation >= 99
    assert result.fairness > 0.99


def test_the_oracle_keeps_the_order_of_arrival():
    async def ask() -> list[int]:
        served: list[int] = []
        provider = Oracle(
            Quota(style="bucket", rpm=600, tpm=600, start=START), Tally(0, math.inf), seed=1, clock=virtual_now
        )

        async def one(index: int, tokens: int) -> None:
            await asyncio.sleep(index)
            await provider.send(Request(index, tokens, 0, 1, 0.0, max_tokens=0))
            served.append(index)

        await asyncio.gather(*(one(index, tokens) for index, tokens in enumerate([600, 300, 1, 1])))
        return served

    assert in_virtual_time(ask()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("style", "throttled", "p99"), [("sliding", (15, 55), (30, 75)), ("bucket", (30, 60), (12, 40))]
)
def test_backoff_wastes_attempts_and_time_but_no_quota(style, throttled, p99):
    result = measured("backoff", style, replace(SHORT, measured=240.0))
    assert result.utilisation == pytest.approx(100, abs=1.5)
    assert throttled[0] < result.throttled < throttled[1]
    assert p99[0] < result.p99 < p99[1]


def test_backoff_gives_up_after_six_tries_and_heeds_retry_after():
    tries: list[float] = []

    async def full(request: Request) -> Response:
        tries.append(virtual_now())
        return Response(429, virtual_now(), {"retry-after-ms": "20000"})

    async def ask() -> None:
        with pytest.raises(GaveUp):
            await send_with_backoff(Request(0, 1, 1, 1, 1.0), full, Random(1))

    in_virtual_time(ask())
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) == 6
    assert pauses[:4] == pytest.approx([20.0] * 4)


def test_the_articles_bucket_admits_twice_its_limit_and_thrice_in_the_first_minute():
    async def saturate() -> tuple[float, float]:
        bucket = ArticleBucket(60_000, virtual_now)
        admitted: list[float] = []

        async def greedy() -> None:
            while virtual_now() < START + 600:
                await bucket.acquire(500)
                admitted.append(virtual_now() - START)

        await asyncio.gather(*(greedy() for _ in range(20)))
        first = sum(500 for at in admitted if at < 60)
        steady = sum(500 for at in admitted if 120 <= at < 600)
        return first / 60_000, steady / (8 * 60_000)

    first, steady = in_virtual_time(saturate())
    assert first == pytest.approx(2.97, abs=0.05)
    assert steady == pytest.approx(2.00, abs=0.02)


# The program


def test_one_that_is_not_installed_is_said_to_be_so(tmp_path, capsys, monkeypatch):
    def absent(settings: object) -> None:
        raise AssertionError("built although not installed")

    table = {"limits": Limiter("limits", absent, "no-such-distribution"), "oracle": LIMITERS["oracle"]}
    for module in ("__main__", "run", "report"):
        monkeypatch.setattr(f"benchmarks.limiter.{module}.LIMITERS", table)
    main(["--quick", "--scenario", "closed", "--only", "limits", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("not installed") == len(STYLES)
    assert (tmp_path / "limiter.csv").read_text().startswith("scenario,style,limiter,seed,utilisation")


def test_the_cost_of_a_call_and_of_a_waiter_is_measured():
    costs = asyncio.run(uncontended(calls=20, rounds=1))
    assert costs["ours, acquire"] > 0
    crowd = crowded(50)
    assert 500 < crowd.memory < 50_000
    assert crowd.admission > 0


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_percentiles_are_values_that_occurred(percent, value):
    assert percentile([4, 1, 3, 2], percent) == value


def test_the_percentile_of_nothing_is_not_a_number():
    assert math.isnan(percentile([], 99))
