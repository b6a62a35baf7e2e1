"""`ErrorBounded`: the user states how many wrong hits are bearable, the policy finds out how strict that is."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul
from statistics import NormalDist

from dispatch_core.consensus import Consensus
from dispatch_core.curve import ALL_MINILM_L6_V2, FLOOR, STEPS, Curve, level_of, step_of, strict_step_of
from dispatch_core.equivalence import Equivalence
from dispatch_core.errors import ConfigError
from dispatch_core.policy import Graded, Reading
from dispatch_core.types import Decision, Entry, Match

_WINDOW = 4
"""Steps of strictness below a cut whose labels still say something about the hits above it."""

_PRIOR = 100.0
"""How many labels the calibration counts for."""

WARMING_UP = "warming-up"
CHECKING = "checking"


@dataclass(frozen=True, slots=True)
class Bound:
    """What is known of one path to a hit: "near-duplicate", "consensus", ...

    ``cut`` is the threshold from which it serves, None if none is known to be strict enough; ``error`` bounds the
    share of wrong hits among those it serves. ``labels`` answers were compared, ``wrong`` of them differed.
    ``warming_up`` says that too few were compared to tell: nothing is served yet.
    """

    cut: float | None
    error: float
    labels: int
    wrong: int
    warming_up: bool


class ErrorBounded:
    """Serve only as far as at most ``max_error`` of the hits are wrong, by what the answers themselves have shown.

    Every question that is not served is a free test: what would have been served is compared with the answer that
    came instead. Of the hits, a share of ``check`` is not served but asked all the same, for there is no other way to
    learn of wrong ones. From these labels, and from a calibration ``curve`` made offline, the policy estimates by how
    much this stream of questions is harder than the calibration's, and takes the loosest threshold at which the
    error, with a one-sided ``confidence``, stays below ``max_error``. Near duplicates and consensus err differently,
    so each path has its own.

    Until enough was compared, a path is *warming up*: what it would serve is checked, nothing is served, nothing is
    bound, and `bounds` says so. Later changes are learned too: labels fade with a half-life of ``memory`` labels.
    The bound holds at each moment with that confidence, not at all moments together. ``chance`` draws from [0, 1).

    ``max_error`` is per hit, not per request: the share of requests answered wrongly is smaller by the hit rate.
    ``base`` is a `Graded` policy (`Consensus`, `Guarded`, `Threshold`), whose own threshold is the loosest that is
    ever taken. "Wrong" is what ``base.same`` calls another answer: where answers are worded anew each time, plug in
    one that sees through wording, such as `AnswersAlike`, else nothing will ever be served. Thread-safe; one instance
    is for one cache.

    >>> policy = ErrorBounded(0.01)
    >>> policy.warming_up
    True

    Learning a bound from hits that are asked all the same is vCache's (Schroeder et al., 2025), which keeps one per
    entry and over all requests. Here labels are pooled, since on a long tail an entry is hardly ever asked again.
    """

    def __init__(
        self,
        max_error: float = 0.01,
        base: Graded | None = None,
        *,
        confidence: float = 0.95,
        check: float = 0.05,
        curve: Curve = ALL_MINILM_L6_V2,
        memory: int = 5_000,
        chance: Callable[[], float] = random.random,
    ) -> None:
        for name, value in (("max_error", max_error), ("check", check)):
            if not 0.0 < value < 1.0:
                raise ConfigError(f"{name} is a share in (0, 1), got {value}")
        if not 0.5 <= confidence < 1.0:
            raise ConfigError(f"confidence is a probability in [0.5, 1), got {confidence}")
        if memory < 100:
            raise ConfigError(f"memory is at least 100 labels, got {memory}")
        self.max_error = max_error
        self.base: Graded = base if base is not None else Consensus()
        self._z = NormalDist().inv_cdf(confidence)
        self._check = check
        self._chance = chance
        self._curve = curve
        self._fade = 0.5 ** (1.0 / memory)
        self._lock = threading.Lock()
        self._evidence: dict[str, Evidence] = {}
        self._bounds: dict[str, Bound] = {}

    def __repr__(self) -> str:
        return f"ErrorBounded(max_error={self.max_error:g}, base={self.base!r})"

    @property
    def neighbours(self) -> int:
        return self.base.neighbours

    @property
    def same(self) -> Equivalence:
        return self.base.same

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        """Whether a hit is checked is drawn anew each time: a wrong one that is asked for often is found out soon."""
        graded = self.base.grade(text, candidates, floor=FLOOR)
        if graded.candidate is None:
            return graded
        bound = self._bounds.get(graded.path)
        if bound is None or bound.cut is None or graded.level < bound.cut:
            warming_up = bound is None or bound.warming_up
            return replace(graded, hit=None, reason=WARMING_UP if warming_up else "below-bound")
        if self._chance() < self._check:
            return replace(graded, hit=None, reason=CHECKING)
        return graded

    def read(self, text: str) -> None:
        if isinstance(self.base, Reading):
            self.base.read(text)

    def learn(self, decision: Decision, answer: Entry) -> None:
        """Compare what would have been served with the answer that came instead."""
        candidate = decision.candidate
        if candidate is None or decision.hit is not None:
            return
        # Each checked hit stands for all those that were served.
        weight = 1.0 / self._check if decision.reason == CHECKING else 1.0
        wrong = not self.base.same(candidate.entry, answer)
        with self._lock:
            evidence = self._evidence.setdefault(decision.path, Evidence())
            evidence.add(step_of(decision.level), weight, wrong, self._fade)
            self._bounds[decision.path] = self._bound(decision.path, evidence)

    def bounds(self) -> Mapping[str, Bound]:
        """For each path to a hit that was taken so far, where it stands."""
        with self._lock:
            return dict(self._bounds)

    @property
    def warming_up(self) -> bool:
        """Whether nothing is bound yet, and nothing served."""
        return all(bound.warming_up for bound in self.bounds().values())

    def to_json(self) -> str:
        """What was learned, to be given to `learned` by the next process. Holds counts, no texts."""
        with self._lock:
            return json.dumps({path: evidence.counts() for path, evidence in self._evidence.items()})

    def learned(self, text: str) -> ErrorBounded:
        """This policy, with what `to_json` of an earlier one gave. Raises `ConfigError` for anything else."""
        try:
            evidence = {str(path): Evidence.of(counts) for path, counts in json.loads(text).items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError("not what ErrorBounded.to_json gave") from error
        with self._lock:
            self._evidence.update(evidence)
            self._bounds = {path: self._bound(path, its) for path, its in self._evidence.items()}
        return self

    def _bound(self, path: str, evidence: Evidence) -> Bound:
        """The loosest step at which the error is bound; without one, the bound of the strictest."""
        rates = self._curve.of(path)
        labels, wrong = round(sum(evidence.labels)), round(sum(evidence.wrong))
        error, loosest = 1.0, strict_step_of(self.base.threshold)
        for step in range(loosest, STEPS):
            error = self._error(evidence, rates, step)
            if error <= self.max_error:
                return Bound(level_of(step), error, labels, wrong, warming_up=False)
        # Had nothing been wrong, would this many be enough?
        enough = _gamma_quantile(1.0, self._z) / (_PRIOR + sum(evidence.labels[loosest:])) <= self.max_error
        return Bound(None, error, labels, wrong, warming_up=not enough)

    def _error(self, evidence: Evidence, rates: Sequence[float], cut: int) -> float:
        """An upper bound on the error of hits from this step on."""
        seen = evidence.seen[cut:]
        typical = float(sum(map(mul, seen, rates[cut:])) / sum(seen)) if any(seen) else rates[cut]
        # The wrong ones are Poisson: about the error itself times the labels, for what was seen of hits; about the
        # expected ones times how much harder these questions are, for what was seen just below, too.
        labels = _PRIOR + sum(evidence.labels[cut:])
        low = max(0, cut - _WINDOW)
        expected = _PRIOR * typical + float(sum(map(mul, evidence.labels[low:], rates[low:])))
        direct = _gamma_quantile(1.0 + sum(evidence.wrong[cut:]), self._z) / labels
        scaled = typical * _gamma_quantile(1.0 + sum(evidence.wrong[low:]), self._z) / expected
        return max(direct, scaled)


class Evidence:
    """Counts for each step of strictness: candidates seen, candidates compared with an answer, wrong ones."""

    __slots__ = ("labels", "seen", "wrong")

    def __init__(self) -> None:
        self.seen = [0.0] * STEPS
        self.labels = [0.0] * STEPS
        self.wrong = [0.0] * STEPS

    def add(self, step: int, weight: float, wrong: bool, fade: float) -> None:
        for counts in (self.seen, self.labels, self.wrong):
            counts[:] = [count * fade for count in counts]
        self.seen[step] += weight
        self.labels[step] += 1.0
        self.wrong[step] += wrong

    def counts(self) -> dict[str, list[float]]:
        return {name: list(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def of(cls, counts: Mapping[str, Sequence[float]]) -> Evidence:
        """Raises ValueError for anything but counts."""
        evidence = cls()
        for name in cls.__slots__:
            values = [float(count) for count in counts[name]]
            if len(values) != STEPS or not all(0.0 <= count < math.inf for count in values):
                raise ValueError(name)
            setattr(evidence, name, values)
        return evidence


def _gamma_quantile(shape: float, z: float) -> float:
    """Of a gamma distribution of scale 1 and shape ≥ 1, by Wilson and Hilferty (1931): within 2 % from 1 on."""
    return shape * (1.0 - 1.0 / (9.0 * shape) + z / (3.0 * math.sqrt(shape))) ** 3
