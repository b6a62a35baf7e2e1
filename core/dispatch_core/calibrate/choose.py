"""Which setting is good enough? Pure: counts over halves of the questions, and tests that hold.

Settings are chosen on one half and reported on the other, so that no figure is judged by what it was chosen for.
A recommendation has passed a test: one half puts the settings in order, safest first; the other tests them in this
order and stops at the first that fails. That keeps the chance of a wrong promise however many settings there are:
fixed-sequence testing, as in Angelopoulos et al., "Learn then Test" (2021) and Laufer-Goldshtein et al., "Efficiently
Controlling Multiple Risks with Pareto Testing" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate.families import Family
from dispatch_core.interval import clopper_pearson, upper_bound

CONFIDENCE = 0.95
_ONE_HALF = (1 + CONFIDENCE) / 2
"""Each half promises with this confidence; so a promise of either holds with `CONFIDENCE`. It is also the confidence
of the upper end of a two-sided interval at `CONFIDENCE`."""

_PROMISING = 8
"""With this part of the hits needed and few errors, a setting looks good."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one setting: questions asked, hits of the policy among them, wrong answers among the hits.

    Hits of one text, asked again and again, have one outcome and are one piece of evidence: ``repeats`` is the sum
    of ``m (m - 1)`` over texts with ``m`` hits, 0 if all are different.
    """

    asked: int
    hits: int
    wrong: int
    repeats: int = 0

    def __add__(self, other: Figures) -> Figures:
        """Of other questions: no text is in both."""
        counts = (self.hits + other.hits, self.wrong + other.wrong, self.repeats + other.repeats)
        return Figures(self.asked + other.asked, *counts)

    @property
    def hit_rate(self) -> float:
        return self.hits / self.asked if self.asked else 0.0

    @property
    def per_hit(self) -> float:
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def per_request(self) -> float:
        return self.wrong / self.asked if self.asked else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson of the error per hit at `CONFIDENCE`, as if different texts were independent."""
        trials, events = self._evidence
        low, _ = clopper_pearson(math.floor(events), trials, CONFIDENCE)
        return low, self.bound

    @property
    def bound(self) -> float:
        """The upper end of the interval."""
        trials, events = self._evidence
        return upper_bound(math.ceil(events), trials, _ONE_HALF)

    @property
    def _evidence(self) -> tuple[int, float]:
        """Independent hits, as many as Kish's effective size of a clustered sample, and wrong ones in proportion."""
        trials = self.hits * self.hits // (self.hits + self.repeats) if self.hits else 0
        return trials, min(trials, self.wrong * trials / self.hits) if self.hits else 0


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of a family over all questions: which the policy served, and which of these wrongly.

    ``texts`` numbers what was asked; ``exact`` counts the questions that it left to exact matching.
    """

    family: Family
    setting: float
    hit: Mask
    wrong: Mask
    texts: NDArray[np.int64]
    exact: int = 0

    @property
    def code(self) -> str:
        return self.family.code(self.setting)

    @property
    def all(self) -> Figures:
        return self.over(np.ones(len(self.hit), dtype=np.bool_))

    def over(self, mask: Mask) -> Figures:
        hit = self.hit & mask
        its = np.bincount(self.texts[hit])
        return Figures(int(mask.sum()), int(hit.sum()), int((self.wrong & hit).sum()), int((its * (its - 1)).sum()))


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting with the most hits at an error per hit of at most ``target`` on everything; None if there is none.

    ``held_out`` are the figures of settings chosen in the same way on one half, over the other half, both ways added.
    """

    target: float
    family: Family
    trial: Trial | None
    held_out: Figures


class Verdict(StrEnum):
    RECOMMENDED = "recommended"
    TOO_FEW_HITS = "too few hits to tell"
    NOT_GOOD_ENOUGH = "no setting is good enough"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A setting that passed, or why there is none.

    ``tested`` are its figures over the halves that tested it, no part in choosing it. Without one, ``trial`` is the
    setting that came closest, if any had hits.
    """

    verdict: Verdict
    max_error: float
    trial: Trial | None
    tested: Figures | None = None


def halves(texts: NDArray[np.int64], seed: int = 0) -> Mask:
    """One half of the questions by random; askings of one text, by its number, stay together."""
    numbers = np.unique(texts)
    chosen = np.random.default_rng(seed).permutation(numbers)[: len(numbers) // 2]
    return np.isin(texts, chosen)


def choose(family: Family, trials: Sequence[Trial], target: float, half: Mask) -> Choice:
    """``trials`` are those of the family."""
    whole = np.ones(len(half), dtype=np.bool_)
    held_out = Figures(0, 0, 0)
    for inside, outside in ((half, ~half), (~half, half)):
        chosen = _loosest(trials, target, inside)
        held_out += chosen.over(outside) if chosen else Figures(int(outside.sum()), 0, 0)
    return Choice(target, family, _loosest(trials, target, whole), held_out)


def recommend(trials: Sequence[Trial], max_error: float, half: Mask) -> Recommendation:
    """With `CONFIDENCE`, at most ``max_error`` of the recommended setting's hits are wrong.

    That holds for questions drawn like these, and as far as the answers of the log are right.
    """
    passed: dict[int, Figures] = {}
    for inside, outside in ((half, ~half), (~half, half)):
        for place in _passing(trials, max_error, inside, outside):
            passed[place] = passed.get(place, Figures(0, 0, 0)) + trials[place].over(outside)
    if passed:
        place = max(passed, key=lambda place: trials[place].all.hits)
        return Recommendation(Verdict.RECOMMENDED, max_error, trials[place], passed[place])
    tried = [trial for trial in trials if trial.all.hits]
    closest = min(tried, key=lambda trial: trial.all.bound, default=None)
    return Recommendation(_why_none(tried, max_error), max_error, closest)


def hits_needed(max_error: float) -> int:
    """Without one wrong answer among so many hits, half of them in either half, a setting just passes."""
    return 2 * math.ceil(math.log1p(-_ONE_HALF) / math.log1p(-max_error))


def _why_none(tried: Sequence[Trial], max_error: float) -> Verdict:
    """More questions could help where a setting looks good, or where none looks bad for sure."""
    figures = [trial.all for trial in tried]
    good = any(f.per_hit <= max_error and f.hits * _PROMISING >= hits_needed(max_error) for f in figures)
    bad = any(f.interval[0] > max_error for f in figures)
    return Verdict.NOT_GOOD_ENOUGH if bad and not good else Verdict.TOO_FEW_HITS


def _passing(trials: Sequence[Trial], max_error: float, inside: Mask, outside: Mask) -> Iterable[int]:
    """Places of the settings that the half outside lets pass, each with more hits than the one before."""
    order = sorted((figures.bound, place, figures.hits) for place, figures in _over(trials, inside))
    most = 0
    for _, place, hits in order:
        if hits <= most:
            continue
        if trials[place].over(outside).bound > max_error:
            return
        most = hits
        yield place


def _over(trials: Sequence[Trial], mask: Mask) -> Iterable[tuple[int, Figures]]:
    return ((place, trial.over(mask)) for place, trial in enumerate(trials))


def _loosest(trials: Sequence[Trial], target: float, mask: Mask) -> Trial | None:
    counted = [(trial, trial.over(mask)) for trial in trials]
    enough = [(figures.hits, trial) for trial, figures in counted if figures.hits and figures.per_hit <= target]
    return max(enough, key=lambda pair: pair[0], default=(0, None))[1]
