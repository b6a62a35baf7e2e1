"""What became of the arrivals of one run, and the figures that follow. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load_test.stage import Cost

CPU_LIMIT = 0.70
"""A process that needs more of a core has measured itself, not the arm."""
LAG_LIMIT = 0.1
"""Seconds. Where the program or whoever asks it is later than that, the machine was measured: it is too busy."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it came back. ``seconds`` count from the intended arrival, queue and retries included.

    ``late`` is how much of that passed before it was sent.

    ``status`` is that of the application: 200, 429 when its last attempt was refused, 500 for any other failure.
    """

    seconds: float
    status: int
    answer: str | None = None
    hit: bool = False
    error: str | None = None
    late: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """`Asked`, with what only the examiner knows: is the answer right, was it asked before, is it a trap?"""

    at: float
    group: str
    kind: str
    lang: str
    repeat: bool
    right: bool
    asked: Asked


@dataclass(frozen=True, slots=True)
class Run:
    """One arm, one seed, one rig. ``lasted`` is from the first intended arrival to the last answer, in seconds."""

    rig: str
    arm: str
    seed: int
    outcomes: Sequence[Outcome]
    cost: Cost
    lasted: float

    @property
    def lag(self) -> float:
        """The P99 of how late questions were sent or of how late the program woke up, the larger, in seconds."""
        return max(self.cost.lag, quantile(sorted(outcome.asked.late for outcome in self.outcomes), 0.99))

    @property
    def valid(self) -> bool:
        busiest = max(self.cost.application, self.cost.provider, self.cost.generator)
        return busiest <= CPU_LIMIT and self.lag <= LAG_LIMIT


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm over all its runs. Times are of right answers, in seconds; shares are of arrivals unless said."""

    arrivals: int
    right: float
    logical_429: float
    attempt_429: float
    attempts_429: int
    mean: float
    p50: float
    p99: float
    per_hour: float
    tokens: float
    hits: int
    wrong_hits: int
    wrong_traps: int
    recalled: float
    application_cpu: float
    provider_cpu: float
    generator_cpu: float
    lag: float
    valid: bool

    @property
    def wrong_share(self) -> float:
        """Wrong hits as a share of the hits."""
        return self.wrong_hits / self.hits if self.hits else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; NaN of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def figures(runs: Sequence[Run]) -> Figures:
    """The outcomes of the runs pooled; of the CPU shares and the lag the largest."""
    outcomes = [outcome for run in runs for outcome in run.outcomes]
    right = [outcome for outcome in outcomes if outcome.right]
    times = sorted(outcome.asked.seconds for outcome in right)
    requests = sum(int(run.cost.counted["requests"]) for run in runs)
    refused = sum(int(run.cost.counted["rejected_429"]) for run in runs)
    tokens = sum(run.cost.counted["prompt_tokens"] + run.cost.counted["completion_tokens"] for run in runs)
    hits = [outcome for outcome in outcomes if outcome.asked.hit]
    wrong = [outcome for outcome in hits if not outcome.right]
    return Figures(
        arrivals=len(outcomes),
        right=len(right) / len(outcomes),
        logical_429=sum(outcome.asked.status == 429 for outcome in outcomes) / len(outcomes),
        attempt_429=refused / max(1, requests),
        attempts_429=refused,
        mean=statistics.fmean(times) if times else math.nan,
        p50=quantile(times, 0.50),
        p99=quantile(times, 0.99),
        per_hour=3600 * len(right) / sum(run.lasted for run in runs),
        tokens=tokens / max(1, len(right)),
        hits=len(hits),
        wrong_hits=len(wrong),
        wrong_traps=sum(outcome.kind == "hard_negative" for outcome in wrong),
        recalled=sum(outcome.repeat and outcome.right for outcome in hits)
        / max(1, sum(outcome.repeat for outcome in outcomes)),
        application_cpu=max(run.cost.application for run in runs),
        provider_cpu=max(run.cost.provider for run in runs),
        generator_cpu=max(run.cost.generator for run in runs),
        lag=max(run.lag for run in runs),
        valid=all(run.valid for run in runs),
    )
