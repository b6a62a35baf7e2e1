"""Tables for people and a CSV for programs."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limiter.limiters import LIMITERS
from benchmarks.limiter.run import Job, Result
from benchmarks.limiter.styles import STYLES, TITLES, Style
from benchmarks.limiter.workload import MAX_TOKENS, Scenario, means

_COLUMNS: Mapping[str, tuple[str, str]] = {
    "utilisation": ("util %", ".1f"),
    "throttled": ("429 %", ".2f"),
    "p50": ("P50 s", ".1f"),
    "p99": ("P99 s", ".1f"),
    "wait_p99": ("wait P99", ".1f"),
    "big_wait_p99": ("big P99", ".1f"),
    "fairness": ("Jain", ".3f"),
    "failed": ("failed %", ".2f"),
    "refused": ("refused %", ".1f"),
}
_HOP = 0.032


@dataclass(frozen=True, slots=True)
class Row:
    """One cell of the comparison; ``result`` is the median over seeds, or the reason why there is none."""

    scenario: str
    style: Style
    limiter: str
    result: Result | str


def rows_of(jobs: Sequence[Job], results: Sequence[Result]) -> list[Row]:
    rows = []
    for key, group in groupby(zip(jobs, results, strict=True), key=lambda pair: _cell(pair[0])):
        rows.append(Row(*key, median_of([result for _, result in group])))
    return rows


def median_of(results: Sequence[Result]) -> Result:
    """Every number's own median; nan, where nothing could be measured, is left out."""
    values: dict[str, Any] = {}
    for field in fields(Result):
        known = [v for v in (getattr(result, field.name) for result in results) if not math.isnan(v)]
        values[field.name] = median(known) if known else math.nan
    return Result(**values)


def describe(scenario: Scenario) -> str:
    """The scenario's numbers, computed from the workload rather than claimed."""
    mean = means(scenario)
    cycle = mean.service + 2 * _HOP + scenario.think
    offered = scenario.open_rate or scenario.clients / cycle * mean.actual / (scenario.tpm / 60)
    ceiling = 1 / (1 + mean.service * (mean.reserved - mean.actual) / (60 * mean.actual))
    return (
        f"{scenario.name}: {scenario.title}\n"
        f"  rpm {scenario.rpm:,}, tpm {scenario.tpm:,}; a call uses {mean.actual:.0f} tokens and reserves "
        f"{mean.reserved:.0f} (max_tokens {MAX_TOKENS}); demand {offered:.2f} × the quota\n"
        f"  {scenario.warmup:.0f} s warm-up not measured, then {scenario.measured:.0f} s; "
        f"windows that reserve max_tokens allow a smooth stream {100 * ceiling:.1f} %"
    )


def table(rows: Sequence[Row]) -> str:
    width = max((len(LIMITERS[row.limiter].title) for row in rows), default=0)
    head = " " * (width + 2) + "".join(f"{title:>11}" for title, _ in _COLUMNS.values())
    lines = []
    for style in (style for style in STYLES if any(row.style == style for row in rows)):
        lines += [f"{TITLES[style]}", head]
        for row in sorted((r for r in rows if r.style == style), key=lambda r: list(LIMITERS).index(r.limiter)):
            lines.append(f"  {LIMITERS[row.limiter].title:<{width}}{_cells(row.result)}")
    return "\n".join(lines)


def write_csv(jobs: Sequence[Job], results: Sequence[Result], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [field.name for field in fields(Result)]
        writer = csv.DictWriter(file, ["scenario", "style", "limiter", "seed", *names])
        writer.writeheader()
        for job, result in zip(jobs, results, strict=True):
            scenario, style, limiter = _cell(job)
            cell = {"scenario": scenario, "style": style, "limiter": limiter, "seed": job.seed}
            writer.writerow(cell | asdict(result))


def _cell(job: Job) -> tuple[str, Style, str]:
    return job.scenario.name, job.style, job.limiter


def _cells(result: Result | str) -> str:
    if isinstance(result, str):
        return f"  {result}"
    values = ((getattr(result, name), form) for name, (_, form) in _COLUMNS.items())
    return "".join(f"{'–' if math.isnan(value) else format(value, form):>11}" for value, form in values)
