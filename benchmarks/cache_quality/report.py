"""Tables for people and a CSV for programs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache_quality.arms import ARMS
from dispatch_core.interval import clopper_pearson

_WIDTHS = (16, 11, 10, 16, 16, 12, 10, 10)
_HEAD = ("", "hits %", "wrong", "per hit %", "95 % interval", "per ask %", "P50 ms", "P95 ms")


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of one policy over one corpus, all orders of asking together.

    ``p50`` and ``p95`` are milliseconds of a decision on pairs that are new to the guards; None if not measured.
    """

    corpus: str
    arm: str
    setting: float
    asked: int
    hits: int
    wrong: int
    p50: float | None = None
    p95: float | None = None

    @property
    def hit_rate(self) -> float:
        return self.hits / self.asked if self.asked else 0.0

    @property
    def per_hit(self) -> float:
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def per_request(self) -> float:
        return self.wrong / self.asked if self.asked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Of the error per hit. A little narrow: the same questions come in every order."""
        return clopper_pearson(self.wrong, self.hits)


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
            facts = (row.corpus, row.arm, row.setting, row.asked, row.hits, row.wrong)
            writer.writerow((*facts, *row.interval, row.p50, row.p95))


def _cells(row: Row, mark: str) -> tuple[str, ...]:
    low, high = (100 * bound for bound in row.interval)
    return (
        f"  {row.setting:g}{mark}",
        f"{100 * row.hit_rate:.1f}",
        f"{row.wrong:,}",
        f"{100 * row.per_hit:.2f}" if row.hits else "–",
        f"{low:.2f} – {high:.2f}" if row.hits else "–",
        f"{100 * row.per_request:.2f}",
        "" if row.p50 is None else f"{row.p50:.3f}",
        "" if row.p95 is None else f"{row.p95:.3f}",
    )


def _line(cells: Sequence[str]) -> str:
    first, *others = zip(cells, _WIDTHS, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"{cell:>{width}}" for cell, width in others)
