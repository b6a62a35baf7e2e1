"""Contestants in turn: processor time of this process and of the servers it asks, the time on the wall beside it."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Run = Callable[[int], object]
"""Does so many calls."""


def nothing() -> None:
    """All is as it should be."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What is measured: ``calls`` calls a round, after ``before``, which is not."""

    name: str
    run: Run
    calls: int
    before: Callable[[], object] = nothing


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one call, in microseconds, the median of all rounds: processor time on both sides, and wall time."""

    cpu: float
    wall: float


def measured(arms: Sequence[Arm], *, rounds: int, servers: Sequence[int] = (), seed: int = 1) -> Mapping[str, Sample]:
    """All arms in each round, in a new random order each time. ``servers`` are the ids of their processes."""
    chance = random.Random(seed)
    spent: dict[str, list[tuple[float, float]]] = {arm.name: [] for arm in arms}
    for arm in arms:
        arm.run(1)
    for _ in range(rounds):
        for arm in chance.sample(list(arms), len(arms)):
            arm.before()
            gc.collect()
            gc.disable()
            try:
                cpu, wall = _busy(servers), time.perf_counter()
                arm.run(arm.calls)
                cpu, wall = _busy(servers) - cpu, time.perf_counter() - wall
            finally:
                gc.enable()
            spent[arm.name].append((cpu / arm.calls * 1e6, wall / arm.calls * 1e6))
    return {
        name: Sample(median(cpu for cpu, _ in pairs), median(wall for _, wall in pairs))
        for name, pairs in spent.items()
    }


def _busy(servers: Sequence[int]) -> float:
    """Seconds of processor time so far, of all threads on both sides."""
    return time.process_time() + sum(map(_busy_of, servers))


def _busy_of(process: int) -> float:
    tasks = Path(f"/proc/{process}/task")
    try:
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    except FileNotFoundError:
        pass
    try:
        # In ticks, the 14th and 15th field; the second may have blanks in it, but ends with the last bracket.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        raise SystemExit("the processor time of a server is read from /proc: this needs Linux") from None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
