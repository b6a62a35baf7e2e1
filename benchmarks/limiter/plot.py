"""The closed loop as bars: how much of the quota each limiter used, at what price in 429s and in waiting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.limiter.limiters import LIMITERS
from benchmarks.limiter.report import Row
from benchmarks.limiter.run import Result
from benchmarks.limiter.styles import STYLES, TITLES

_PANELS = (
    ("utilisation", "token quota used, %", "linear"),
    ("throttled", "429s, % of attempts", "linear"),
    ("p99", "P99 latency, s", "log"),
)
_BAR = 0.8 / len(STYLES)


def plot(rows: Sequence[Row], path: Path) -> list[str]:
    """What was written: nothing without matplotlib or without results of the closed loop."""
    shown = [(row, row.result) for row in rows if row.scenario == "closed" and isinstance(row.result, Result)]
    try:
        import matplotlib
    except ImportError:
        return []
    if not shown:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in LIMITERS if any(row.limiter == name for row, _ in shown)]
    figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(15, 1.5 + 0.6 * len(names)), sharey=True)
    for axis, (metric, label, scale) in zip(axes, _PANELS, strict=True):
        _bars(axis, shown, names, metric)
        axis.set(xlabel=label, xscale=scale)
        if scale == "log":
            axis.set_xlim(left=1)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), [LIMITERS[name].title for name in names])
    axes[0].invert_yaxis()
    figure.suptitle("100 clients in a closed loop, demand 3.5 × the quota")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=len(STYLES), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return [str(path)]


def _bars(axis: Any, shown: Sequence[tuple[Row, Result]], names: Sequence[str], metric: str) -> None:
    for index, style in enumerate(STYLES):
        cells = [(names.index(row.limiter), getattr(result, metric)) for row, result in shown if row.style == style]
        if cells:
            places = [place + (index - (len(STYLES) - 1) / 2) * _BAR for place, _ in cells]
            axis.barh(places, [value for _, value in cells], height=_BAR, label=TITLES[style])
