"""What happened, counted: Prometheus' metrics, and a snapshot for the status page."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from dispatch_core.types import Usage

Outcome = Literal["exact_hit", "semantic_hit", "collapsed", "miss", "bypass", "rejected"]
OUTCOMES: tuple[Outcome, ...] = ("exact_hit", "semantic_hit", "collapsed", "miss", "bypass", "rejected")
Basis = Literal["provider", "saved", "reserved", "wasted", "compressed"]
BASES: tuple[Basis, ...] = ("provider", "saved", "reserved", "wasted", "compressed")
OF_KIND: dict[str, Outcome] = {"exact": "exact_hit", "semantic": "semantic_hit", "flight": "collapsed"}

_SHORT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_LONG = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Times(Collector):
    """A histogram of seconds, of one thread: Prometheus' own has a lock for each number. ``dated``: it says since
    when it counts, as the other metrics do."""

    def __init__(self, name: str, about: str, bounds: Sequence[float], *, dated: bool) -> None:
        self._name, self._about = name, about
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._since = time.time() if dated else None

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._about, "histogram")
        for bound, count in zip((*self._bounds, math.inf), accumulate(self._counts), strict=True):
            metric.add_sample(f"{self._name}_bucket", {"le": floatToGoString(bound)}, count)  # type: ignore[no-untyped-call]
        metric.add_sample(f"{self._name}_count", {}, sum(self._counts))
        metric.add_sample(f"{self._name}_sum", {}, self._sum)
        if self._since is not None:
            metric.add_sample(f"{self._name}_created", {}, self._since)
        yield metric


class Meters:
    """The metrics of one gateway, in a registry of their own. ``utilization`` gives (owner, limit, ratio) rows when
    somebody looks, ``failing`` whether the cache is paused, ``unshortened`` whether a compressor is."""

    def __init__(
        self,
        utilization: Callable[[], Iterable[tuple[str, str, float]]],
        failing: Callable[[], bool],
        unshortened: Callable[[], bool],
    ) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._utilization, self._failing, self._unshortened = utilization, failing, unshortened
        requests = Counter("dispatch_requests", "Requests by outcome.", ["outcome"], registry=registry)
        tokens = Counter("dispatch_tokens", "Tokens, by what came of them.", ["basis"], registry=registry)
        # They have a lock each: what is counted comes to them when somebody looks.
        self._counters: dict[str, Counter] = {name: requests.labels(name) for name in OUTCOMES}
        self._counters.update((name, tokens.labels(name)) for name in BASES)
        self._shown = dict.fromkeys(self._counters, 0)
        dated = any(sample.name.endswith("_created") for metric in requests.collect() for sample in metric.samples)
        self._waits = _Times("dispatch_queue_wait_seconds", "Waits for the quota.", _LONG, dated=dated)
        told = "Time in the gateway itself: without upstream and queue."
        self._overheads = _Times("dispatch_overhead_seconds", told, _SHORT, dated=dated)
        told = "Time to make prompts shorter, waits for a thread included."
        self._shortenings = _Times("dispatch_compression_seconds", told, _SHORT, dated=dated)
        for times in (self._waits, self._overheads, self._shortenings):
            registry.register(times)
        self._refusals = Counter(
            "dispatch_upstream_429", "Refusals of upstreams for their rate.", ["deployment"], registry=registry
        )
        self._ratios = Gauge(
            "dispatch_limit_utilization_ratio", "Used share of each limit.", ["owner", "limit"], registry=registry
        )
        self._breaker = Gauge(
            "dispatch_store_breaker_state", "1 while the cache is paused, 0 while it works.", registry=registry
        )
        self._compression = Gauge(
            "dispatch_compression_breaker_state", "1 while a compressor is paused, else 0.", registry=registry
        )
        self.counts: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.amounts: dict[str, int] = dict.fromkeys(BASES, 0)
        self.refusals = 0

    def ended(self, outcome: Outcome) -> None:
        self.counts[outcome] += 1

    def spent(self, basis: Basis, tokens: int) -> None:
        self.amounts[basis] += tokens

    def hit(self, kind: str, saved: Usage) -> Outcome:
        """What a match of this kind comes to, once it is sent."""
        self.spent("saved", saved.total)
        return OF_KIND[kind]

    def waited(self, seconds: float) -> None:
        self._waits.observe(seconds)

    def shortened(self, seconds: float) -> None:
        self._shortenings.observe(seconds)

    def overhead(self, seconds: float) -> None:
        self._overheads.observe(max(0.0, seconds))

    def refused(self, deployment: str) -> None:
        self.refusals += 1
        self._refusals.labels(deployment).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        for name, count in (*self.counts.items(), *self.amounts.items()):
            self._counters[name].inc(count - self._shown[name])
            self._shown[name] = count
        self._ratios.clear()
        for owner, limit, ratio in self._utilization():
            self._ratios.labels(owner, limit).set(ratio)
        self._breaker.set(self._failing())
        self._compression.set(self._unshortened())
        return generate_latest(self.registry)
