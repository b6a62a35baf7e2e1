"""``make bench-limiter``: every limiter before every kind of provider, in virtual time."""

from __future__ import annotations

import argparse
import ast
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.limiter.limiters import LIMITERS
from benchmarks.limiter.plot import plot
from benchmarks.limiter.report import Row, describe, rows_of, table, write_csv
from benchmarks.limiter.run import Job, run
from benchmarks.limiter.workload import SCENARIOS, Scenario, quick

_QUICK = ("ours", "backoff", "oracle")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    started = time.perf_counter()
    jobs, absent = plan(options)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(run, jobs))
    rows = rows_of(jobs, results) + absent
    for scenario in _scenarios(options):
        print(f"\n{describe(scenario)}\n")
        print(table([row for row in rows if row.scenario == scenario.name]))
    options.out.mkdir(parents=True, exist_ok=True)
    write_csv(jobs, results, options.out / "limiter.csv")
    where = [str(options.out / "limiter.csv"), *plot(rows, options.out / "limiter.png")]
    print(f"\nmedian of {options.seeds} seeds, of one for those that poll: {' and '.join(where)}")
    print(f"{time.perf_counter() - started:.0f} s")


def plan(options: argparse.Namespace) -> tuple[list[Job], list[Row]]:
    """The runs to make, and a row for everything that cannot be measured."""
    jobs: list[Job] = []
    absent: list[Row] = []
    for scenario in _scenarios(options):
        for name in _names(options, scenario):
            for style in scenario.styles:
                reason = _reason_to_skip(name, options)
                if reason:
                    absent.append(Row(scenario.name, style, name, reason))
                    continue
                ours = options.ours if name == "ours" else {}
                seeds = 1 if LIMITERS[name].polls and not options.only else options.seeds
                jobs += [Job(scenario, style, name, seed, ours) for seed in range(1, seeds + 1)]
    return jobs, absent


def _reason_to_skip(name: str, options: argparse.Namespace) -> str | None:
    if not LIMITERS[name].installed:
        return "not installed"
    if LIMITERS[name].slow and not options.only:
        return f"slow: only with --only {name}"
    return None


def _scenarios(options: argparse.Namespace) -> list[Scenario]:
    chosen = [s for s in SCENARIOS if options.scenario in (None, s.name)]
    return [quick(scenario) for scenario in chosen] if options.quick else chosen


def _names(options: argparse.Namespace, scenario: Scenario) -> list[str]:
    names = [name for name in LIMITERS if scenario.limiters is None or name in scenario.limiters]
    if options.only:
        return [name for name in names if name in options.only]
    if options.quick:
        return [name for name in names if name in (_QUICK if scenario.name == "closed" else _QUICK[:1])]
    return names


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiter", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one minute measured, one seed, no peers")
    parser.add_argument("--seeds", type=int, help="runs per cell, of which the median is shown (3, quick: 1)")
    parser.add_argument("--only", action="append", choices=LIMITERS, metavar="NAME", help=", ".join(LIMITERS))
    parser.add_argument("--scenario", choices=[s.name for s in SCENARIOS], help="one world instead of all")
    parser.add_argument("--ours", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=Path("benchmark-output"))
    options = parser.parse_args(arguments)
    options.ours = dict(options.ours)
    options.seeds = options.seeds or (1 if options.quick else 3)
    return options


def _setting(text: str) -> tuple[str, Any]:
    """``burst=0.6`` or ``profile=window``: an argument for our limiter."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    main()
