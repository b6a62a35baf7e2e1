"""Clopper–Pearson: the interval of a probability behind so many events in so many trials. Exact, no SciPy needed."""

from __future__ import annotations

import math
from collections.abc import Callable

_HALVINGS = 50


def clopper_pearson(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The shares that an exact binomial test at ``1 - confidence`` does not reject. (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if events == 0 else _root(lambda share: at_most(trials - events, trials, 1 - share) < tail)
    high = 1.0 if events == trials else _root(lambda share: at_most(events, trials, share) > tail)
    return low, high


def at_most(events: int, trials: int, share: float) -> float:
    """The probability of at most so many events."""
    if share <= 0.0 or events >= trials:
        return 1.0
    if share >= 1.0:
        return 0.0
    odds = math.log(share / (1 - share))
    log_term = trials * math.log1p(-share)
    total = math.exp(log_term)
    for event in range(1, events + 1):
        log_term += math.log((trials - event + 1) / event) + odds
        total += math.exp(log_term)
    return min(1.0, total)


def _root(below: Callable[[float], bool]) -> float:
    """Where ``below`` turns from true to false."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low
