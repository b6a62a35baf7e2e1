"""Is this neighbour the same question? Pure decisions over the candidates of a search.

`Threshold` and `Guarded` look at one neighbour at a time; `dispatch_core.consensus` asks all of them, and
`dispatch_core.bounded` learns how strict to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from dispatch_core.equivalence import Equivalence, same_entry
from dispatch_core.errors import ConfigError
from dispatch_core.guards import DEFAULT_GUARDS, Guard, read, refusal
from dispatch_core.types import Decision, Entry, Match


class Policy(Protocol):
    """Decides whether one of the nearest entries answers the question."""

    @property
    def neighbours(self) -> int:
        """How many candidates the decision wants to see."""
        ...

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision: ...


@runtime_checkable
class Graded(Policy, Protocol):
    """A policy whose strictness is one number: it can say at which threshold it would serve what.

    ``grade`` decides as if the threshold were ``floor``: the higher the ``level`` of its candidate, the surer.
    """

    @property
    def threshold(self) -> float: ...

    def grade(self, text: str, candidates: Sequence[Match], *, floor: float) -> Decision: ...

    @property
    def same(self) -> Equivalence:
        """Whether two entries carry the same answer."""
        ...


@runtime_checkable
class Learning(Policy, Protocol):
    """A policy that learns from the answers to the questions that it did not serve."""

    def learn(self, decision: Decision, answer: Entry) -> None:
        """``answer`` is what the model said to the question that ``decision`` was about. Thread-safe."""
        ...


@runtime_checkable
class Reading(Policy, Protocol):
    """A policy that compares texts faster when it has read the stored one before."""

    def read(self, text: str) -> None:
        """``text`` was stored. Thread-safe; changes no decision."""
        ...


def checked_threshold(threshold: float) -> None:
    """Raise `ConfigError` for what is no cosine similarity."""
    if not -1.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold is a cosine similarity in [-1, 1], higher is stricter; got {threshold}")


def served(candidate: Match, path: str, nearest: Match, level: float, **signals: float) -> Decision:
    """The decision to serve a candidate."""
    return Decision(candidate, path, nearest, candidate, level, path, signals)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Serve the nearest entry if its cosine similarity reaches the threshold. The rule of most semantic caches."""

    threshold: float = 0.92
    neighbours: int = 1
    same: Equivalence = same_entry

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        return self.grade(text, candidates, floor=self.threshold)

    def grade(self, text: str, candidates: Sequence[Match], *, floor: float) -> Decision:
        if not candidates:
            return Decision(None, "empty")
        best = candidates[0]
        if best.score < floor:
            return Decision(None, "below-threshold", best)
        return served(best, "above-threshold", best, best.score)


@dataclass(frozen=True, slots=True)
class Guarded:
    """Serve the nearest entry that reaches the threshold and that no guard refuses.

    Embeddings hardly see a changed number, name, negation or direction; guards look at just those.
    """

    threshold: float = 0.92
    guards: Sequence[Guard] = field(default=DEFAULT_GUARDS)
    neighbours: int = 4
    same: Equivalence = same_entry

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        return self.grade(text, candidates, floor=self.threshold)

    def grade(self, text: str, candidates: Sequence[Match], *, floor: float) -> Decision:
        if not candidates:
            return Decision(None, "empty")
        nearest = candidates[0]
        reason = "below-threshold"
        for candidate in candidates:
            if candidate.score < floor:
                break
            refused = refusal(text, candidate.entry.text, self.guards)
            if refused is None:
                return served(candidate, "guarded", nearest, candidate.score)
            # The nearest candidate's refusal is the one worth explaining.
            reason = refused if candidate is nearest else reason
        return Decision(None, reason, nearest)

    def read(self, text: str) -> None:
        read(text, self.guards)
