"""The table, the verdicts and the files. Everything shown was measured in this run."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.load_test.arms import ARMS
from benchmarks.load_test.outcome import CPU_LIMIT, LAG_LIMIT, Figures, Run, figures

BASE, BEST = "retries", ("full", "gateway")
"""The arm that the others are measured by, and those that are to win."""

_HEADINGS = (
    *("right", "429s logical", "429s attempts", "mean s", "P50 s", "P99 s", "answers/h", "tokens/answer"),
    *("hits", "repeats hit", "wrong hits", "CPU app/prov/gen, lag"),
)
Row = tuple[str, str]
"""Rig and arm."""


def rows(runs: Sequence[Run]) -> dict[Row, Figures]:
    """The figures of every rig and arm that ran, in the order of the table."""
    found: dict[Row, list[Run]] = {}
    for rig in dict.fromkeys(run.rig for run in runs):
        for arm in ARMS:
            chosen = [run for run in runs if (run.rig, run.arm) == (rig, arm)]
            if chosen:
                found[rig, arm] = chosen
    return {row: figures(chosen) for row, chosen in found.items()}


def show(measured: Mapping[Row, Figures], console: Console) -> None:
    """The table, a section for each rig."""
    table = Table(title="from the intended arrival to a right answer")
    table.add_column("")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    rigs = [rig for rig, _ in measured]
    for index, ((rig, arm), line) in enumerate(measured.items()):
        table.add_row(f"{rig}: {ARMS[arm].title}", *_cells(line), end_section=rig not in rigs[index + 1 :])
    console.print(table)


def _cells(line: Figures) -> Iterator[str]:
    yield f"{line.right:.1%}"
    yield f"{line.logical_429:.1%}"
    yield f"{line.attempts_429} ({line.attempt_429:.1%})"
    yield from (f"{seconds:.2f}" for seconds in (line.mean, line.p50, line.p99))
    yield f"{line.per_hour:,.0f}"
    yield f"{line.tokens:.1f}"
    yield f"{line.hits} ({line.hits / line.arrivals:.1%})"
    yield f"{line.recalled:.1%}"
    yield f"{line.wrong_hits} ({line.wrong_traps} traps)"
    shares = (line.application_cpu, line.provider_cpu, line.generator_cpu)
    told = "/".join(f"{share:.0%}" for share in shares) + f", {line.lag * 1000:.0f} ms"
    yield told if line.valid else f"{told} INVALID"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise: what was found, what was promised, whether that holds. ``timed`` ones depend on the machine."""

    promise: str
    found: str
    holds: bool
    timed: bool = False


def verdicts(measured: Mapping[Row, Figures], repeats: float) -> list[Verdict]:
    """What the load test is to show, of each rig that ran; `repeats` is their share of the arrivals."""
    found = []
    for (rig, arm), line in measured.items():
        title = f"{rig}: {ARMS[arm].title}"
        if ARMS[arm].limited:
            logical, attempts = f"{line.logical_429:.1%}", str(line.attempts_429)
            found.append(Verdict(f"{title}: no question ends in a 429", logical, line.logical_429 == 0))
            # A machine too busy to send a request when its turn has come sends it when another's has.
            found.append(Verdict(f"{title}: no attempt is a 429", attempts, line.attempts_429 == 0, timed=True))
        if ARMS[arm].answers_all:
            answered = line.right + line.wrong_hits / line.arrivals
            found.append(
                Verdict(
                    f"{title}: all are answered", f"{answered:.1%}", answered > 1 - 1e-9, timed=not ARMS[arm].limited
                )
            )
        wrong = f"{line.wrong_hits} of {line.hits}"
        found.append(Verdict(f"{title}: wrong hits at most 1 % of hits", wrong, line.wrong_share <= 0.01))
        bounds = f"every process below {CPU_LIMIT:.0%} of a core, none later than {LAG_LIMIT:g} s"
        found.append(Verdict(f"{title}: {bounds}", "", line.valid, timed=True))
        if arm in BEST and (base := measured.get((rig, BASE))) is not None:
            found += _against(title, line, base, repeats)
    return found


def _against(title: str, best: Figures, base: Figures, repeats: float) -> Iterator[Verdict]:
    mean, tail, saved = best.mean / base.mean, best.p99 / base.p99, 1 - best.tokens / base.tokens
    than = f"of {ARMS[BASE].title}"
    yield Verdict(f"{title}: mean at most 0.33 {than}", f"{mean:.2f}", mean <= 1 / 3, timed=True)
    yield Verdict(f"{title}: P99 at most 0.40 {than}", f"{tail:.2f}", tail <= 0.4, timed=True)
    yield Verdict(
        f"{title}: tokens an answer down by the repeats' {repeats:.0%}", f"{saved:.1%}", saved >= repeats, True
    )


def tell(found: Sequence[Verdict], console: Console) -> None:
    for verdict in found:
        mark = "[green]holds[/]" if verdict.holds else "[red]does not hold[/]"
        told = f" ({verdict.found})" if verdict.found else ""
        console.print(f"{verdict.promise}{told}: {mark}", highlight=False)


def savings(measured: Mapping[Row, Figures]) -> list[str]:
    """What saved the tokens, of each rig in which the arms ran that tell it."""
    told = []
    for rig in dict.fromkeys(rig for rig, _ in measured):
        base, cached, full = (measured.get((rig, arm)) for arm in (BASE, "uncompressed", "full"))
        if base and cached and full:
            hits, rest = 1 - cached.tokens / base.tokens, (cached.tokens - full.tokens) / base.tokens
            told.append(
                f"{rig}: tokens an answer {full.tokens / base.tokens - 1:+.1%}: hits {-hits:+.1%}, compression "
                f"{-rest:+.1%}; calls that are refused cost none here"
            )
    return told


def write_csv(runs: Sequence[Run], folder: Path) -> list[Path]:
    """``runs.csv``: the figures of every run. ``arrivals.csv``: every arrival of every run."""
    of_runs, of_arrivals = folder / "runs.csv", folder / "arrivals.csv"
    with of_runs.open("w", newline="", encoding="utf-8") as file:
        lines = [{"rig": run.rig, "arm": run.arm, "seed": run.seed, **asdict(figures([run]))} for run in runs]
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    with of_arrivals.open("w", newline="", encoding="utf-8") as file:
        names = ("rig", "arm", "seed", "at", "group", "kind", "lang", "repeat", "seconds", "status", "hit", "right")
        plain = csv.writer(file)
        plain.writerow(names)
        for run in runs:
            for one in run.outcomes:
                asked = one.asked
                place = (run.rig, run.arm, run.seed, f"{one.at:.3f}", one.group, one.kind, one.lang, one.repeat)
                plain.writerow((*place, f"{asked.seconds:.3f}", asked.status, asked.hit, one.right))
    return [of_runs, of_arrivals]
