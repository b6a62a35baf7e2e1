"""One policy's sweep over one corpus in one order of asking; and all orders together."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.questions import Corpus
from benchmarks.cache_quality.report import Row
from benchmarks.cache_quality.stream import differences, stream
from dispatch_core.calibrate.choose import Figures
from dispatch_core.calibrate.replay import Outcome, replay, same_payload
from dispatch_core.calibrate.vectors import Embedded

_SAMPLE = 400
_COLD = 50
"""Decisions not timed: with hardly anything stored, there is little to decide."""


@dataclass(frozen=True, slots=True)
class Job:
    corpus: Corpus
    embedded: Embedded
    arm: str
    seed: int
    limit: int


def run(job: Job) -> list[Row]:
    """The default first, while no guard remembers anything; that run is timed and held against a real cache."""
    arm = ARMS[job.arm]
    questions = stream(job.corpus, job.embedded, seed=job.seed, limit=job.limit)
    rows = {}
    for setting in sorted(arm.sweep, key=lambda setting: setting != arm.default):
        policy = arm.make(setting)
        # Reading the clock takes longer than some decisions.
        clock = time.thread_time if setting == arm.default else None
        outcome = replay(questions, policy, same_payload(questions.entries), clock=clock)
        row = Row(job.corpus.name, job.arm, setting, figures(outcome))
        if setting == arm.default:
            # A policy that has learned would decide otherwise.
            differ = differences(questions, arm.make(setting), outcome, _SAMPLE)
            assert not differ, f"a real cache decides otherwise: {job.corpus.name}, {policy}, questions {differ}"
            costs = np.quantile(outcome.seconds[_COLD:] or [0.0], (0.5, 0.95)) * 1e3
            row = replace(row, p50=float(costs[0]), p95=float(costs[1]))
        rows[setting] = row
    return [rows[setting] for setting in arm.sweep]


def figures(outcome: Outcome) -> Figures:
    """The policy's hits; there are no exact ones among different questions."""
    hit = outcome.semantic
    return Figures(len(hit), int(hit.sum()), int((outcome.wrong & hit).sum()))


def merged(rows: Iterable[Row]) -> list[Row]:
    """The orders of asking together; of times, the median."""
    places = {name: place for place, name in enumerate(ARMS)}
    ordered = sorted(rows, key=lambda row: (row.corpus, places[row.arm], -row.setting))
    result = []
    for key, group in groupby(ordered, key=_key):
        its = list(group)
        p50, p95 = ([time for row in its if (time := getattr(row, name)) is not None] for name in ("p50", "p95"))
        times = (float(np.median(times)) if times else None for times in (p50, p95))
        result.append(Row(*key, sum((row.figures for row in its), Figures(0, 0, 0)), *times))
    return result


def _key(row: Row) -> tuple[str, str, float]:
    return row.corpus, row.arm, row.setting
