"""What the table says, as pictures: one file for each rig."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load_test.arms import ARMS
from benchmarks.load_test.outcome import Figures, Run, figures

_COLOURS = {"bare": "#8a8f98", "retries": "#b0553a", "exact": "#c79a3b", "uncompressed": "#7fb3a6"}
_COLOURS |= {"full": "#2b6f77", "gateway": "#5b4b8a"}
_OTHER = "#333333"
_BINS = 12


def plot(runs: Sequence[Run], rig: str, path: Path) -> None:
    """Latency as a distribution and over time, 429s, tokens and hits of one rig."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    arms = {arm: [run for run in runs if (run.rig, run.arm) == (rig, arm)] for arm in ARMS}
    arms = {arm: chosen for arm, chosen in arms.items() if chosen}
    measured = {arm: figures(chosen) for arm, chosen in arms.items()}
    figure, ((spread, over_time), (refused, tokens)) = plt.subplots(2, 2, figsize=(13, 8.8))
    for arm, chosen in arms.items():
        _distribution(spread, arm, chosen, measured[arm])
        _course(over_time, arm, chosen)
    spread.set(xscale="log", xlabel="seconds to a right answer", ylabel="share of arrivals", ylim=(0, 1.02))
    spread.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    spread.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(
        *spread.get_legend_handles_labels(), frameon=False, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 0.965)
    )
    over_time.set(xlabel="arrival, s", ylabel="median seconds to a right answer", ylim=(0, None))
    _refusals(refused, measured)
    refused.yaxis.set_major_formatter(PercentFormatter(1.0))
    _tokens(tokens, measured)
    titles = ("how long", "when it was fast, when slow", "429s", "provider tokens for a right answer")
    for axis, title in zip((spread, over_time, refused, tokens), titles, strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.25, axis="y" if axis in (refused, tokens) else "both")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{rig}: {sum(len(run.outcomes) for run in arms[next(iter(arms))])} arrivals in every arm")
    figure.tight_layout(rect=(0, 0, 1, 0.88))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _colour(arm: str) -> str:
    return _COLOURS.get(arm, _OTHER)


def _title(arm: str) -> str:
    """In two lines, so that neighbours do not touch."""
    return ARMS[arm].title.replace(" + ", "\n+ ").replace(" by ", "\nby ")


def _distribution(axis: Any, arm: str, runs: Sequence[Run], line: Figures) -> None:
    times = sorted(outcome.asked.seconds for run in runs for outcome in run.outcomes if outcome.right)
    shares = [(index + 1) / line.arrivals for index in range(len(times))]
    label = f"{ARMS[arm].title}: mean {line.mean:.1f} s, P99 {line.p99:.1f} s"
    axis.step(times, shares, color=_colour(arm), label=label, where="post")


def _course(axis: Any, arm: str, runs: Sequence[Run]) -> None:
    points = sorted((one.at, one.asked.seconds) for run in runs for one in run.outcomes if one.right)
    size = max(1, len(points) // _BINS)
    bins = [points[first : first + size] for first in range(0, len(points) - size + 1, size)]
    middles = [statistics.median(at for at, _ in some) for some in bins]
    axis.plot(middles, [statistics.median(took for _, took in some) for some in bins], "o-", ms=4, color=_colour(arm))


def _refusals(axis: Any, measured: Mapping[str, Figures]) -> None:
    places = range(len(measured))
    for offset, name, alpha in ((-0.2, "logical", 1.0), (0.2, "attempts", 0.45)):
        shares = [line.logical_429 if name == "logical" else line.attempt_429 for line in measured.values()]
        colours = [_colour(arm) for arm in measured]
        bars = axis.bar([place + offset for place in places], shares, 0.38, color=colours, alpha=alpha)
        axis.bar_label(bars, labels=[f"{share:.1%}" for share in shares], fontsize=7)
    axis.set_xticks(places, [_title(arm) for arm in measured], fontsize=8)
    axis.set_ylabel("share of questions (dark), of requests (pale)")
    axis.margins(y=0.2)


def _tokens(axis: Any, measured: Mapping[str, Figures]) -> None:
    places = range(len(measured))
    bars = axis.bar(
        places, [line.tokens for line in measured.values()], 0.6, color=[_colour(arm) for arm in measured]
    )
    told = [f"{line.tokens:.1f}\n{line.hits / line.arrivals:.0%} hits" for line in measured.values()]
    axis.bar_label(bars, labels=told, fontsize=8)
    axis.set_xticks(places, [_title(arm) for arm in measured], fontsize=8)
    axis.set_ylabel("tokens")
    axis.margins(y=0.2)
