"""P-CHR: precision against cache-hit ratio, one curve for each policy. Which answers more often at the same error?"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatch_core.calibrate.calibration import Report
from dispatch_core.calibrate.choose import Figures, Recommendation, Trial
from dispatch_core.errors import MissingExtra

# Okabe and Ito's colours, which all kinds of eyes tell apart.
COLOURS = ("#7f7f7f", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
_INK, _FAINT = "#222222", "#9a9a9a"
_ERRORS = (1, 2, 5)
_LEAST, _MOST = 3.0, 12.0
"""Percent of error that the axis shows at least, and at most."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting on a curve; with a ``label`` it is written beside it."""

    figures: Figures
    label: str = ""
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    title: str
    points: Sequence[Point]


def needs() -> None:
    """Raises `MissingExtra` without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("A plot", "calibrate")


def plot(report: Report, path: Path) -> None:
    """Draw the report's settings into a PNG. Raises `MissingExtra`."""
    found = report.recommendation
    chosen = {(c.trial.family.title, c.trial.setting) for c in report.choices if c.trial is not None}
    curves: dict[str, list[Point]] = {}
    for trial in report.trials:
        marked = (trial.family.title, trial.setting) in chosen
        curves.setdefault(trial.family.title, []).append(Point(trial.all, f"{trial.setting:g}" if marked else ""))
    of = "pairs" if report.pairwise else "questions"
    title = f"{Path(report.source.name).name}: {report.asked:,} {of}, {report.embedder}"
    star = found.trial if found.tested is not None else None
    figure, axes = canvas(1)
    draw(axes[0], [Curve(name, points) for name, points in curves.items()], title, of)
    if star is not None:
        _star(axes[0], star, found)
    save(figure, axes, path)


def canvas(panels: int) -> tuple[Any, Sequence[Any]]:
    """A figure with so many axes side by side."""
    needs()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(1.5 + 7.0 * panels, 5.6), squeeze=False)
    return figure, axes[0]


def draw(axis: Any, curves: Sequence[Curve], title: str, of: str = "questions") -> None:
    """Curves with their 95 % intervals, and lines at 1, 2 and 5 % wrong answers."""
    most, worst = _reach(curves)
    axis.set_xlim(-0.03 * most, 1.06 * most)
    axis.set_ylim(100 - worst, 100 + 0.07 * worst)
    for error, above in zip(_ERRORS, (0, *_ERRORS), strict=False):
        # No line whose name would be written over the one above.
        if error < worst < 30 * (error - above):
            axis.axhline(100 - error, color=_FAINT, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            place = {"ha": "left", "va": "center", "fontsize": 8, "color": _INK}
            axis.text(1.008, 100 - error, f"{error} % wrong", transform=axis.get_yaxis_transform(), **place)
    for number, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        _curve(axis, curve, colour, number)
    axis.set_title(title, fontsize=11, loc="left", color=_INK, pad=10)
    axis.set_xlabel(f"cache-hit ratio: answered by the policy, % of {of}", color=_INK)
    axis.grid(alpha=0.18, linewidth=0.6)
    axis.tick_params(colors=_INK, length=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_FAINT)


def _reach(curves: Sequence[Curve]) -> tuple[float, float]:
    """Percent of hits, and of errors, up to which the axes show: every curve at its best, no curve at its worst."""
    figures = [its for curve in curves if (its := [point.figures for point in curve.points if point.figures.hits])]
    every = [f for its in figures for f in its]
    best = max((min(f.per_hit for f in its) for its in figures), default=0.0)
    worst = max(_LEAST, min(max(_MOST, 130 * best), 110 * max((f.per_hit for f in every), default=0.0)))
    return 100 * max((f.hit_rate for f in every if 100 * f.per_hit <= worst), default=0.01), worst


def save(figure: Any, axes: Sequence[Any], path: Path) -> None:
    """Name the axes, add one legend for all, and write the PNG."""
    from matplotlib import pyplot

    axes[0].set_ylabel("precision: right answers, % of hits", color=_INK)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.075, 1, 1))
    figure.legend(
        handles, labels, loc="lower center", ncols=min(len(labels), 3 * len(axes)), frameon=False, fontsize=10
    )
    figure.savefig(path, dpi=140, format="png")
    pyplot.close(figure)


def _curve(axis: Any, curve: Curve, colour: str, number: int) -> None:
    points = [point for point in curve.points if point.figures.hits]
    if not points:
        return
    rates = [100 * point.figures.hit_rate for point in points]
    right = [100 * (1 - point.figures.per_hit) for point in points]
    low, high = zip(*(point.figures.interval for point in points), strict=True)
    band = ([100 * (1 - bound) for bound in bounds] for bounds in (high, low))
    axis.fill_between(rates, *band, color=colour, alpha=0.12, linewidth=0, zorder=2)
    axis.plot(rates, right, color=colour, linewidth=1.8, marker="o", markersize=3.2, label=curve.title, zorder=3)
    bottom = axis.get_ylim()[0]
    for point, x, y in zip(points, rates, right, strict=True):
        if point.label and y > bottom:
            axis.plot([x], [y], color=colour, marker="o", markersize=7, markeredgecolor="white", zorder=4)
            # The first two are neighbours in most plots: one has its labels above, the other below.
            offset, side = ((-5, -13), "right") if number % 2 else ((5, 6), "left")
            weight = "bold" if point.bold else "normal"
            look = {"textcoords": "offset points", "fontsize": 8.5, "color": colour, "weight": weight, "ha": side}
            axis.annotate(point.label, (x, y), offset, zorder=5, **look)


def _star(axis: Any, trial: Trial, found: Recommendation) -> None:
    x, y = 100 * trial.all.hit_rate, 100 * (1 - trial.all.per_hit)
    label = f"{trial.code}, for ≤ {100 * found.max_error:g} % wrong"
    look = {"marker": "*", "markersize": 16, "color": "#F0B400", "markeredgecolor": _INK, "markeredgewidth": 0.8}
    axis.plot([x], [y], linestyle="", label=label, zorder=6, **look)
