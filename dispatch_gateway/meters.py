"""What happened, counted: Prometheus' metrics, and a snapshot for the status page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dispatch_core.types import Usage

Outcome = Literal["exact_hit", "semantic_hit", "collapsed", "miss", "bypass", "rejected"]
OUTCOMES: tuple[Outcome, ...] = ("exact_hit", "semantic_hit", "collapsed", "miss", "bypass", "rejected")
Basis = Literal["provider", "saved", "reserved", "wasted", "compressed"]
BASES: tuple[Basis, ...] = ("provider", "saved", "reserved", "wasted", "compressed")
OF_KIND: dict[str, Outcome] = {"exact": "exact_hit", "semantic": "semantic_hit", "flight": "collapsed"}

_SHORT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_LONG = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
        self._outcomes = {name: requests.labels(name) for name in OUTCOMES}
        self._tokens = {name: tokens.labels(name) for name in BASES}
        self._waits = Histogram(
            "dispatch_queue_wait_seconds", "Waits for the quota.", buckets=_LONG, registry=registry
        )
        self._overheads = Histogram(
            "dispatch_overhead_seconds",
            "Time in the gateway itself: without upstream and queue.",
            buckets=_SHORT,
            registry=registry,
        )
        self._shortenings = Histogram(
            "dispatch_compression_seconds",
            "Time to make prompts shorter, waits for a thread included.",
            buckets=_SHORT,
            registry=registry,
        )
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
        self._outcomes[outcome].inc()

    def spent(self, basis: Basis, tokens: int) -> None:
        self.amounts[basis] += tokens
        self._tokens[basis].inc(tokens)

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
        self._ratios.clear()
        for owner, limit, ratio in self._utilization():
            self._ratios.labels(owner, limit).set(ratio)
        self._breaker.set(self._failing())
        self._compression.set(self._unshortened())
        return generate_latest(self.registry)
