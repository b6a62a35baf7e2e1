"""``make load-test``: bare and dispatched programs, the same questions at the same times, at the article's demand."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.demo.trace import Arrival, load_answers, load_questions
from benchmarks.load_test.arms import ARMS
from benchmarks.load_test.locust_rig import Seen, locust_command, run_locust
from benchmarks.load_test.outcome import Asked, Outcome, Run
from benchmarks.load_test.plot import plot
from benchmarks.load_test.regime import ARTICLE, QUICK, Regime
from benchmarks.load_test.replay import replay
from benchmarks.load_test.report import rows, savings, show, tell, verdicts, write_csv
from benchmarks.load_test.stage import Meter, stage
from benchmarks.load_test.trace import make_trace, repeated

OPEN_LOOP, LOCUST = "open loop", "Locust"


def main() -> int:
    options = _options()
    console = Console(width=180)
    regime = _regime(options)
    locust = None if options.no_locust else locust_command(options.locust)
    console.print(f"regime {regime.name!r}: {regime}", highlight=False)
    seeds = range(1, (options.seeds or (1 if options.quick else 5)) + 1)
    options.out.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for run in _all_runs(regime, seeds, options, locust, console):
        runs.append(run)
        files = write_csv(runs, options.out)
    measured = rows(runs)
    show(measured, console)
    found = verdicts(measured, regime.repeats)
    tell([verdict for verdict in found if not (options.quick and verdict.timed)], console)
    for line in savings(measured):
        console.print(line, highlight=False)
    if locust is None:
        console.print("Locust did not run: it is not installed here, or was not wanted")
    for rig in dict.fromkeys(run.rig for run in runs):
        files.append(options.out / f"{rig.lower().replace(' ', '-')}.png")
        plot(runs, rig, files[-1])
    console.print("written: " + ", ".join(map(str, files)))
    return int(options.quick and not all(verdict.holds or verdict.timed for verdict in found))


def _all_runs(
    regime: Regime, seeds: Sequence[int], options: argparse.Namespace, locust: list[str] | None, console: Console
) -> Iterator[Run]:
    """Every arm with every seed, forth and back in turn (A-B-B-A), so that no arm always goes first; then Locust.

    A run mostly waits: ``options.jobs`` go on at once, each with processes of its own.
    """
    arms: list[str] = options.arms
    plan = [(OPEN_LOOP, seed, arm) for seed in seeds for arm in (arms if seed % 2 else reversed(arms))]
    plan += [(LOCUST, seeds[0], arm) for arm in arms if locust]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(options.jobs) as pool:
        task = progress.add_task("runs", total=len(plan))
        futures = [pool.submit(_one, regime, *place, locust or []) for place in plan]
        for future in futures:
            yield future.result()
            progress.advance(task)


def _one(regime: Regime, rig: str, seed: int, arm: str, locust: list[str]) -> Run:
    trace = make_trace(load_questions(), regime, seed=seed)
    with stage(arm, regime, seed=seed) as opened:
        meter = Meter(opened)
        if rig == LOCUST:
            seen = run_locust(locust, trace, opened.url, regime, seed=seed)
        else:
            seen = Seen(trace, asyncio.run(replay(trace, opened.url)), None)
        cost = meter.read(seen.cpu_seconds)
    lasted = max(arrival.at + one.seconds for arrival, one in zip(seen.trace, seen.asked, strict=True))
    return Run(rig, arm, seed, _judged(seen.trace, seen.asked), cost, lasted)


def _judged(trace: Sequence[Arrival], asked: Sequence[Asked]) -> list[Outcome]:
    answers = load_answers()
    return [
        Outcome(
            at=arrival.at,
            group=arrival.question.group,
            kind=arrival.question.kind,
            lang=arrival.question.lang,
            repeat=repeat,
            right=one.answer == answers[arrival.question.group],
            asked=one,
        )
        for arrival, repeat, one in zip(trace, repeated(trace), asked, strict=True)
    ]


def _regime(options: argparse.Namespace) -> Regime:
    regime = QUICK if options.quick else ARTICLE
    if options.verbatim is not None:
        regime = replace(regime, verbatim=options.verbatim)
    return regime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_test", description=__doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="one seed at another scale of time; fails for wrong answers and 429s only",
    )
    add("--seeds", type=int, help="how many traces (default: 5, or 1 with --quick)")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="which programs (default: all)")
    add(
        "--verbatim",
        type=float,
        help="share of the repeats that are in the words of an earlier question (default: 0)",
    )
    add("--jobs", type=int, default=2, help="runs at once (default: %(default)s)")
    add("--locust", metavar="PROGRAM", help="Locust of another environment (default: that of this one)")
    add("--no-locust", action="store_true", help="the open loop only")
    add("--out", type=Path, default=Path("benchmark-output/load-test"), help="folder of the files")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
