"""Tables for people and a CSV for programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache_quality.arms import ARMS
from dispatch_core.calibrate.choose import Figures

_WIDTHS = (16, 11, 10, 16, 16, 12, 10, 10)
_HEAD = ("", "hits %", "wrong", "per hit %", "95 % interval", "per ask %", "P50 ms", "P95 ms")


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of one policy over one corpus, all orders of asking together.

    The interval of ``figures`` is a little narrow: the same questions come in every order. ``p50`` and ``p95`` are
    milliseconds of a decision on pairs that are new to the guards; None if not measured.
    """

    corpus: str
    arm: str
    setting: float
    figures: Figures
    p50: float | None = None
    p95: float | None = None


def table(rows: Sequence[Row]) -> str:
    lines = [_line(_HEAD)]
    for name, arm in ARMS.items():
        its = [row for row in rows if row.arm == name]
        if its:
            lines.append(f"{arm.title} ({arm.parameter})")
            lines += [_line(_cells(row, "*" if row.setting == arm.default else "")) for row in its]
    return "\n".join(lines)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head = ("corpus", "policy", "setting", "asked", "hits", "wrong", "low", "high", "p50_ms", "p95_ms")
        writer.writerow(head)
        for row in rows:
            its = row.figures
            facts = (row.corpus, row.arm, row.setting, its.asked, its.hits, its.wrong)
            writer.writerow((*facts, *its.interval, row.p50, row.p95))


def _cells(row: Row, mark: str) -> tuple[str, ...]:
    its = row.figures
    low, high = (100 * bound for bound in its.interval)
    return (
        f"  {row.setting:g}{mark}",
        f"{100 * its.hit_rate:.1f}",
        f"{its.wrong:,}",
        f"{100 * its.per_hit:.2f}" if its.hits else "–",
        f"{low:.2f} – {high:.2f}" if its.hits else "–",
        f"{100 * its.per_request:.2f}",
        "" if row.p50 is None else f"{row.p50:.3f}",
        "" if row.p95 is None else f"{row.p95:.3f}",
    )


def _line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)
