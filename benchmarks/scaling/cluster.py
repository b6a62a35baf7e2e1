"""Caches on one Redis, and on a cluster of three nodes: what a hit takes, and where the caches lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import redis

from benchmarks.server import clustered, program, served
from dispatch_core import Entry, RedisNearStore, Usage
from dispatch_core.types import Matrix

PREFIXES = ("dispatch", "support", "sales", "docs")
ENTRIES, DIMS, ROUNDS, CALLS = 1_000, 384, 15, 100


class Cost(NamedTuple):
    """Median microseconds of an exact hit and of a search among all entries with the fetch of the answer."""

    exact: float
    near: float


class Measured(NamedTuple):
    single: Cost
    cluster: Cost
    caches: list[int]
    """How many of the caches lie on each node."""


def measured() -> Measured:
    vectors = np.random.default_rng(7).standard_normal((ENTRIES, DIMS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    by = program()
    with served(by) as server, clustered(by) as nodes:
        one = RedisNearStore(server.url, prefix="support")
        many = [RedisNearStore(f"redis+cluster://127.0.0.1:{nodes[0].port}", prefix=prefix) for prefix in PREFIXES]
        for store in (one, *many):
            for number, vector in enumerate(vectors):
                store.put(_entry(number), vector)
            store.search(vectors[0], scope="s", limit=4, now=time.time())  # the mirror fills
        costs = _costs(one, many[PREFIXES.index("support")], vectors)
        caches = [_caches_on(node.port) for node in nodes]
        for store in (one, *many):
            store.close()
    return Measured(*costs, caches)


def _costs(one: RedisNearStore, many: RedisNearStore, vectors: Matrix) -> tuple[Cost, Cost]:
    """In turns, so that what else the machine does falls on both."""
    rounds = [(_cost(one, vectors), _cost(many, vectors)) for _ in range(ROUNDS)]
    single, cluster = zip(*rounds, strict=True)
    return _median(single), _median(cluster)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.exact for cost in costs), median(cost.near for cost in costs))


def _cost(store: RedisNearStore, vectors: Matrix) -> Cost:
    now = time.time()
    return Cost(
        _per_call(lambda at: store.get(f"id{at}", now=now)),
        _per_call(lambda at: store.search(vectors[at], scope="s", limit=4, now=now)),
    )


def _per_call(call: Callable[[int], object]) -> float:
    started = time.perf_counter()
    for at in range(CALLS):
        if not call(at):
            raise SystemExit("an entry was not found")
    return 1e6 * (time.perf_counter() - started) / CALLS


def _entry(number: int) -> Entry:
    return Entry(f"id{number}", "n", "s", f"question {number}", b"an answer" * 50, Usage(10, 100), time.time())


def _caches_on(port: int) -> int:
    with redis.Redis(port=port) as client:
        return sum(next(client.scan_iter(f"{{{prefix}}}*", count=1_000), None) is not None for prefix in PREFIXES)
