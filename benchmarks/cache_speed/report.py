"""Tables for people and a CSV for programs."""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.cache_speed.lines import Figures, Line, judged


def table(figures: Figures) -> str:
    """Each line of what must be reached."""
    rows = [f"{'':<60}{'target':>10}{'measured':>10}"]
    for line, measured in judged(figures).items():
        sign = "≥" if line.at_least else "≤"
        target = f"{sign} {line.target:g} {line.unit}".rstrip()
        if measured is None:
            rows.append(f"{line.title:<60}{target:>10}{'–':>10}  not measured: {line.missing}")
        else:
            rows.append(f"{line.title:<60}{target:>10}{_shown(measured):>10}  {_verdict(line, measured)}")
    return "\n".join(rows)


def contestants(figures: Figures) -> str:
    """What each contestant took."""
    rows = [f"{'microseconds a call':<60}{'CPU':>10}{'wall':>10}"]
    rows += [f"{name:<60}{_shown(its.cpu):>10}{_shown(its.wall):>10}" for name, its in figures.samples.items()]
    rows += ["", f"{'milliseconds of a new process':<60}{'CPU':>10}"] if figures.cold else []
    rows += [f"{name:<60}{_shown(spent):>10}" for name, spent in figures.cold.items()]
    return "\n".join(rows)


def write_csv(figures: Figures, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "name", "target", "measured", "wall", "unit", "verdict"])
        for line, measured in judged(figures).items():
            verdict = "not measured" if measured is None else _verdict(line, measured)
            writer.writerow(["line", line.title, line.target, measured, "", line.unit, verdict])
        for name, its in figures.samples.items():
            writer.writerow(["call", name, "", its.cpu, its.wall, "µs", ""])
        for name, spent in figures.cold.items():
            writer.writerow(["process", name, "", spent, "", "ms", ""])


def _verdict(line: Line, measured: float) -> str:
    return "ok" if line.reached(measured) else "missed"


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000 else f"{number:.3g}"
