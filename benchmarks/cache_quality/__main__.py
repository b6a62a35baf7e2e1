"""``make bench-cache DATA=folder``: hit rate and error of each policy on public questions in random orders."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.folds import folds
from benchmarks.cache_quality.plot import plot
from benchmarks.cache_quality.questions import NoData, load
from benchmarks.cache_quality.report import table, write_csv
from benchmarks.cache_quality.run import Job, merged, run
from benchmarks.cache_quality.vectors import embedded
from dispatch_core import SentenceTransformerEmbedder


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    started = time.perf_counter()
    try:
        corpora = load(options.data)
    except NoData as missing:
        sys.exit(str(missing))
    embedder = SentenceTransformerEmbedder()
    known = [(corpus, embedded(corpus, embedder, options.out / "vectors")) for corpus in corpora]
    jobs = [
        Job(corpus, vectors, arm, seed, options.limit)
        for corpus, vectors in known
        for arm in ARMS
        for seed in range(1, options.seeds + 1)
    ]
    # Each in a fresh process: what guards remember of an earlier run would make their cost look smaller.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, context, max_tasks_per_child=1) as pool:
        rows = merged(row for rows in pool.map(run, jobs) for row in rows)
    for corpus in corpora:
        asked = min(options.limit, len(corpus.texts))
        print(f"\n{corpus.title}\n  {asked:,} of {len(corpus.texts):,} questions in {options.seeds} random orders\n")
        print(table([row for row in rows if row.corpus == corpus.name]))
    if options.folds:
        print(f"\n{folds(known, seeds=options.seeds, limit=options.limit)}")
    write_csv(rows, options.out / "cache_quality.csv")
    titles = [(corpus.name, corpus.title) for corpus in corpora]
    where = [str(options.out / "cache_quality.csv"), *plot(rows, titles, options.out / "cache_quality.png")]
    print("\n* the default; P50 and P95 are processor time of one decision, without embedding and search")
    print(" and ".join(where))
    print(f"{time.perf_counter() - started:.0f} s")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_quality", description=__doc__)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the public files; without it, what they are"
    )
    parser.add_argument("--seeds", type=int, default=3, help="random orders of asking (3)")
    parser.add_argument("--limit", type=int, default=5_000, help="questions asked in each order (5,000)")
    parser.add_argument("--folds", action="store_true", help="tune on one half of a corpus, report on the other")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"))
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.limit < 1:
        parser.error("--seeds and --limit are at least 1")
    return options


if __name__ == "__main__":
    main()
