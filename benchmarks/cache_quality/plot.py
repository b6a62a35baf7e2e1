"""P-CHR curves: precision against cache-hit ratio of each policy, a panel for each corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.report import Row
from dispatch_core.calibrate.plot import Curve, Point, canvas, draw, save
from dispatch_core.errors import MissingExtra


def plot(rows: Sequence[Row], titles: Sequence[tuple[str, str]], path: Path) -> list[str]:
    """What was written: nothing without matplotlib. ``titles`` are the names of the corpora with what they are."""
    try:
        figure, axes = canvas(len(titles))
    except MissingExtra:
        return []
    for axis, (name, title) in zip(axes, titles, strict=True):
        draw(
            axis, [_curve(arm, [row for row in rows if (row.corpus, row.arm) == (name, arm)]) for arm in ARMS], title
        )
    save(figure, axes, path)
    return [str(path)]


def _curve(arm: str, rows: Sequence[Row]) -> Curve:
    default = ARMS[arm].default
    return Curve(ARMS[arm].title, [Point(row.figures, f"{row.setting:g}", row.setting == default) for row in rows])
