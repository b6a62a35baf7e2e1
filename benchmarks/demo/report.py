"""The table and the plot. Everything shown was measured in this run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.demo.replay import Outcome


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One replay: what the client saw, and what the provider counted."""

    framework: str
    arm: str
    outcomes: Sequence[Outcome]
    answers: dict[str, str]
    provider: dict[str, Any]

    @property
    def answered(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.answer is not None]

    @property
    def failed(self) -> int:
        return len(self.outcomes) - len(self.answered)

    @property
    def mean(self) -> float:
        return statistics.fmean(outcome.seconds for outcome in self.answered)

    @property
    def p99(self) -> float:
        ordered = sorted(outcome.seconds for outcome in self.answered)
        return ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]

    @property
    def tokens(self) -> int:
        return int(self.provider["prompt_tokens"] + self.provider["completion_tokens"])

    @property
    def throttled(self) -> int:
        return int(self.provider["rejected_429"])

    @property
    def hits(self) -> int:
        """Answers that cost the provider nothing."""
        return len(self.answered) - int(self.provider["admitted"])

    def wrong(self, lang: str) -> int:
        """Answers of another question: the simulator is never wrong, so each is a wrong cache hit."""
        return sum(
            outcome.answer != self.answers[outcome.question.group]
            for outcome in self.answered
            if outcome.question.lang == lang
        )


def show(results: Sequence[ArmResult], repeats: int, console: Console) -> None:
    asked = len(results[0].outcomes)
    table = Table(title=f"{asked} questions, {repeats} of them repeats by meaning ({repeats / asked:.0%})")
    table.add_column("")
    for heading in ("mean s", "P99 s", "provider tokens", "429s", "failed calls", "cache hits", "wrong hits"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            f"{result.framework} {result.arm}",
            f"{result.mean:.2f}",
            f"{result.p99:.2f}",
            f"{result.tokens:,}",
            f"{result.throttled} ({result.throttled / max(1, result.provider['requests']):.1%})",
            str(result.failed),
            f"{result.hits} ({result.hits / asked:.1%})" if result.arm == "dispatched" else "-",
            f"{result.wrong('en')} en, {result.wrong('zh')} zh" if result.arm == "dispatched" else "-",
            end_section=result.arm == "dispatched",
        )
    console.print(table)
    for bare, dispatched in zip(results[::2], results[1::2], strict=True):
        saved = 1 - (dispatched.tokens / len(dispatched.answered)) / (bare.tokens / len(bare.answered))
        console.print(
            f"{bare.framework}: {saved:.0%} fewer provider tokens per answer; "
            f"{dispatched.hits} of {repeats} repeats were answered from the cache."
        )


def plot(results: Sequence[ArmResult], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    colours = {"bare": "#b0553a", "dispatched": "#2b6f77"}
    frameworks = list(dict.fromkeys(result.framework for result in results))
    figure, axes = plt.subplots(len(frameworks), 3, figsize=(13, 3.4 * len(frameworks)), squeeze=False)
    for row, framework in zip(axes, frameworks, strict=True):
        for result in (result for result in results if result.framework == framework):
            _curves(row, result, colours[result.arm])
        row[0].set(xscale="log", xlabel="seconds from intended arrival", ylabel="share of answers", ylim=(0, 1.02))
        row[1].set(xlabel="arrival, s", ylabel="seconds to the answer")
        row[2].set(ylabel="share of calls", ylim=(0, 1))
        row[0].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        row[2].yaxis.set_major_formatter(PercentFormatter(1.0))
        row[0].set_title(f"{framework}: latency")
        row[1].set_title("when it was fast, when slow")
        row[2].set_title("429s and failed calls")
        row[0].legend(frameon=False)
        for axis in row:
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curves(row: Any, result: ArmResult, colour: str) -> None:
    ordered = sorted(outcome.seconds for outcome in result.answered)
    shares = [(index + 1) / len(result.outcomes) for index in range(len(ordered))]
    row[0].step(ordered, shares, color=colour, label=f"{result.arm} ({result.failed} failed)", where="post")
    row[1].scatter(
        [outcome.at for outcome in result.answered],
        [outcome.seconds for outcome in result.answered],
        s=6,
        alpha=0.6,
        color=colour,
    )
    bars = [result.throttled / max(1, result.provider["requests"]), result.failed / len(result.outcomes)]
    places = [0, 1] if result.arm == "bare" else [0.38, 1.38]
    drawn = row[2].bar(places, bars, width=0.34, color=colour)
    row[2].bar_label(drawn, labels=[f"{share:.1%}" for share in bars], fontsize=8)
    row[2].set_xticks([0.19, 1.19], ["429s per request", "failed calls"])
