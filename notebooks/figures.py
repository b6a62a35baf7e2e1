"""The plots of the notebooks: one look, one idea each. Each returns its figure, closed, to be shown once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

BARE, DISPATCHED = "#b0553a", "#2b6f77"
FAINT, INK = "#9a9a9a", "#222222"
OTHERS = ("#2b6f77", "#d08a2e", "#6c5b95", "#7a8b3d")
"""Of processes and policies, of which none is better than another."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a timeline, in seconds: asked, first sent, done; when it was refused; whether it failed."""

    asked: float
    sent: float
    done: float
    refused: Sequence[float] = ()
    failed: bool = False


def rolling_hit_rate(shares: Mapping[str, Sequence[bool]], *, window: int = 50) -> Any:
    """Of the last questions, the share of which something is true, by its name: from the most to the least."""
    figure, axis = _canvas(8.5, 3.6)
    for (name, values), colour in zip(shares.items(), (FAINT, DISPATCHED, OTHERS[1]), strict=False):
        axis.plot(np.arange(1, len(values) + 1), _rolling(values, window), color=colour, linewidth=2, label=name)
    axis.set(xlabel="questions asked", ylabel=f"share of the last {window}", xlim=(1, None), ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(frameon=False, fontsize=9, loc="upper left")
    _titled(axis, "Rolling hit rate")
    return _done(figure)


def latency_histogram(seconds: Mapping[str, Sequence[float]]) -> Any:
    """How long answers took, on a log scale; hits and retries are orders of magnitude apart."""
    figure, axis = _canvas(8.5, 3.4)
    every = np.concatenate([np.asarray(values) for values in seconds.values()])
    bins = np.geomspace(max(1e-3, every.min() * 0.9), every.max() * 1.1, 46)
    for (name, values), colour in zip(seconds.items(), (BARE, DISPATCHED), strict=False):
        axis.hist(values, bins=bins, color=colour, alpha=0.55, label=f"{name}: median {np.median(values):.2g} s")
        axis.axvline(float(np.median(values)), color=colour, linewidth=1.4, linestyle=(0, (4, 3)))
    axis.set(xscale="log", xlabel="seconds to the answer, queue and retries included", ylabel="answers")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.legend(frameon=False, fontsize=9)
    _titled(axis, "Latency")
    return _done(figure)


def cumulative_tokens(tokens: Mapping[str, Sequence[float]]) -> Any:
    """What the provider bills, question by question."""
    figure, axis = _canvas(8.5, 3.4)
    for (name, values), colour in zip(tokens.items(), (BARE, DISPATCHED), strict=False):
        total = np.cumsum(values)
        axis.step(np.arange(1, len(total) + 1), total, color=colour, linewidth=2, where="post")
        axis.annotate(
            f"{name}\n{total[-1]:,.0f}",
            (len(total), total[-1]),
            (6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
        )
    axis.set(xlabel="questions asked", ylabel="tokens billed so far", xlim=(1, None), ylim=(0, None))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _titled(axis, "Cumulative tokens")
    return _done(figure)


def threshold_sweep(curves: Mapping[str, Sequence[tuple[float, float, float]]], *, default: float) -> Any:
    """Of each policy: thresholds, hits per question and wrong hits per hit."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10.5, 3.8))
    # The second is drawn broad, because the third often runs upon it.
    looks = ((BARE, 2, 1.0), (OTHERS[1], 6, 0.5), (DISPATCHED, 2, 1.0))
    for (name, points), (colour, width, alpha) in zip(curves.items(), looks, strict=False):
        thresholds, hit, wrong = zip(*points, strict=True)
        look = {"color": colour, "linewidth": width, "alpha": alpha, "marker": "o", "markersize": 3.5}
        for axis, values in zip(axes, (hit, wrong), strict=True):
            axis.plot(thresholds, values, label=name, **look)
    for axis, what in zip(axes, ("questions answered by the policy", "hits that were wrong"), strict=True):
        axis.axvline(default, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        axis.invert_xaxis()
        axis.set(xlabel="threshold (cosine): strict → loose", ylim=(0, None))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _titled(axis, what)
    axes[0].legend(frameon=False, fontsize=9)
    axes[1].annotate(
        f"default {default:g}",
        (default, axes[1].get_ylim()[1]),
        (-4, -4),
        textcoords="offset points",
        color=INK,
        fontsize=8,
        ha="right",
        va="top",
    )
    return _done(figure)


def queue_timeline(arms: Mapping[str, Sequence[Call]]) -> Any:
    """Every call as a line, the first asked at the top: waiting here, at the provider, refused by it."""
    figure, axes = pyplot.subplots(1, len(arms), figsize=(5.6 * len(arms), 4.6), sharex=True, sharey=True)
    for axis, (name, calls) in zip(np.atleast_1d(axes), arms.items(), strict=True):
        for row, call in enumerate(sorted(calls, key=lambda call: call.asked)):
            axis.plot([call.asked, call.sent], [row, row], color="#cfcfcf", linewidth=1.6, solid_capstyle="butt")
            axis.plot(
                [call.sent, call.done],
                [row, row],
                color=BARE if call.failed else DISPATCHED,
                linewidth=1.6,
                alpha=0.35 if call.failed else 1.0,
                solid_capstyle="butt",
            )
            axis.plot(call.refused, [row] * len(call.refused), linestyle="", marker="x", color=BARE, markersize=3.5)
        refused, failed = sum(len(call.refused) for call in calls), sum(call.failed for call in calls)
        axis.set(xlabel="seconds")
        _titled(axis, f"{name}: {refused} × 429, {failed} failed")
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("calls, in the order of asking")
    first.invert_yaxis()
    marks = [
        Line2D([], [], color="#cfcfcf", linewidth=4, label="waits here"),
        Line2D([], [], color=DISPATCHED, linewidth=4, label="at the provider, answered"),
        Line2D([], [], color=BARE, alpha=0.35, linewidth=4, label="retries, in vain"),
        Line2D([], [], color=BARE, linestyle="", marker="x", label="429"),
    ]
    return _done(figure, legend=marks)


def gauge_timeline(samples: Sequence[tuple[float, int, int, float]], *, limit: float) -> Any:
    """Samples of a limiter: second, waiting, open, requests used of ``limit``."""
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8.5, 4.4), sharex=True)
    at, waiting, opened, used = zip(*samples, strict=True)
    above.fill_between(at, waiting, color="#cfcfcf", step="post", label="waiting")
    above.plot(at, opened, color=DISPATCHED, linewidth=1.6, drawstyle="steps-post", label="at the provider")
    above.set(ylabel="calls", ylim=(0, None))
    above.legend(frameon=False, fontsize=9)
    below.plot(at, used, color=DISPATCHED, linewidth=1.8, drawstyle="steps-post")
    below.axhline(limit, color=BARE, linewidth=1.2, linestyle=(0, (4, 3)))
    place = {"textcoords": "offset points", "color": BARE, "fontsize": 9}
    below.annotate("the quota", (at[0], limit), (0, -4), va="top", **place)
    below.set(xlabel="seconds", ylabel="requests in the window", ylim=(0, 1.12 * limit))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _titled(above, "Queue")
    _titled(below, "Quota in use, reserved and settled")
    return _done(figure)


def shared_quota(
    arms: Mapping[str, Sequence[tuple[float, int, bool]]], *, limit: float, window: float, bucket: float = 0.5
) -> Any:
    """Of each arm: second, process and whether it was answered, for every request that reached the provider."""
    figure, axes = pyplot.subplots(1, len(arms), figsize=(5.6 * len(arms), 3.9), sharex=True, sharey=True)
    end = max(at for requests in arms.values() for at, _, _ in requests)
    edges = np.arange(0.0, end + bucket, bucket)
    for axis, (name, requests) in zip(np.atleast_1d(axes), arms.items(), strict=True):
        bottom = np.zeros(len(edges) - 1)
        for process, colour in zip(sorted({process for _, process, _ in requests}), OTHERS, strict=False):
            its = np.histogram([at for at, who, good in requests if who == process and good], edges)[0]
            axis.bar(edges[:-1], its, bucket * 0.92, bottom, align="edge", color=colour, label=f"process {process}")
            bottom += its
        refused = np.histogram([at for at, _, good in requests if not good], edges)[0]
        axis.bar(edges[:-1], refused, bucket * 0.92, bottom, align="edge", color=BARE, alpha=0.45, label="429")
        axis.axhline(
            limit * bucket / window, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="quota, on average"
        )
        axis.set(xlabel="seconds")
        _titled(axis, f"{name}: {int(refused.sum())} × 429")
    np.atleast_1d(axes)[0].set_ylabel(f"requests per {bucket:g} s")
    return _done(figure, legend=np.atleast_1d(axes)[0].get_legend_handles_labels()[0])


def facts_kept(curves: Mapping[str, Sequence[tuple[float, float]]], *, whole: float) -> Any:
    """Of shortened prompts, by the name of the facts: tokens sent, and the share of facts that survived."""
    figure, axis = _canvas(8.5, 3.6)
    for (name, points), colour in zip(curves.items(), (DISPATCHED, FAINT), strict=False):
        tokens, kept = zip(*points, strict=True)
        axis.plot(tokens, kept, color=colour, linewidth=2, marker="o", markersize=5, label=name)
    axis.axvline(whole, color=BARE, linewidth=1.2, linestyle=(0, (4, 3)))
    place = {"textcoords": "offset points", "color": BARE, "fontsize": 9, "ha": "right"}
    axis.annotate("the whole prompt", (whole, 0.03), (-5, 0), **place)
    axis.set(xscale="log", xlabel="tokens sent per prompt", ylabel="prompts that hold the facts", ylim=(0, 1.05))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(0.03, 0.66))
    _titled(axis, "Shorter prompts")
    return _done(figure)


def _rolling(values: Sequence[bool], window: int) -> Any:
    """Of the last ``window`` values, or of as many as there were."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    return pyplot.subplots(figsize=(width, height))


def _titled(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11, color=INK)
    axis.grid(alpha=0.22, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=3)


def _done(figure: Any, *, legend: Sequence[Any] = ()) -> Any:
    """Laid out, with one legend below all axes if there is one."""
    figure.tight_layout(rect=(0, 0.08 if legend else 0, 1, 1))
    if legend:
        figure.legend(handles=legend, loc="lower center", ncols=len(legend), frameon=False, fontsize=9)
    pyplot.close(figure)
    return figure
