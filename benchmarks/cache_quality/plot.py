"""Precision over hit rate, one curve for each policy: which answers more often at the same error?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.report import Row

# Colour, and where a setting's name is written relative to its point, so that the curves' names do not collide.
_LOOKS: Sequence[tuple[str, tuple[int, int], str]] = (
    ("tab:gray", (6, 3), "left"),
    ("tab:blue", (-5, -12), "right"),
    ("tab:green", (0, 8), "center"),
)


def plot(rows: Sequence[Row], titles: Sequence[tuple[str, str]], path: Path) -> list[str]:
    """What was written: nothing without matplotlib. ``titles`` are the names of the corpora with what they are."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(titles), figsize=(6.5 * len(titles), 5), squeeze=False)
    for axis, (name, title) in zip(axes[0], titles, strict=True):
        for (arm, facts), look in zip(ARMS.items(), _LOOKS, strict=True):
            curve = [row for row in rows if (row.corpus, row.arm) == (name, arm) and row.hits]
            _curve(axis, curve, facts.title, facts.default, look)
        axis.axhline(99, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("answered from the cache, % of questions")
        most = max((100 * row.hit_rate for row in rows if row.corpus == name), default=1.0)
        axis.set_xlim(-0.05 * most, 1.08 * most)
        axis.grid(alpha=0.3)
        worst = max((100 * row.per_hit for row in rows if row.corpus == name), default=1.0)
        axis.set_ylim(99.7 - 1.15 * worst, 100 + 0.08 * (worst + 0.3))
    axes[0][0].set_ylabel("right answers, % of hits (shaded: 95 % interval)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(ARMS), frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return [str(path)]


def _curve(
    axis: Any, curve: Sequence[Row], label: str, default: float, look: tuple[str, tuple[int, int], str]
) -> None:
    if not curve:
        return
    colour, offset, side = look
    rates = [100 * row.hit_rate for row in curve]
    right = [100 * (1 - row.per_hit) for row in curve]
    low, high = zip(*(row.interval for row in curve), strict=True)
    axis.fill_between(
        rates, *([100 * (1 - bound) for bound in bounds] for bounds in (low, high)), color=colour, alpha=0.13
    )
    axis.plot(rates, right, label=label, color=colour, marker="o", markersize=4)
    for row, x, y in zip(curve, rates, right, strict=True):
        weight = "bold" if row.setting == default else "normal"
        text = {"textcoords": "offset points", "fontsize": 8, "color": colour, "weight": weight, "ha": side}
        axis.annotate(f"{row.setting:g}", (x, y), offset, **text)
