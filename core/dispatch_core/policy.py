"""Is this neighbour the same question? Pure decisions over the candidates of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dispatch_core.errors import ConfigError
from dispatch_core.guards import DEFAULT_GUARDS, Guard, refusal
from dispatch_core.types import Match


@dataclass(frozen=True, slots=True)
class Decision:
    """``hit`` is the entry to serve or None; ``reason`` says why, ``nearest`` is the best candidate seen."""

    hit: Match | None
    reason: str
    nearest: Match | None = None


class Policy(Protocol):
    """Decides whether one of the nearest entries answers the question."""

    @property
    def neighbours(self) -> int:
        """How many candidates the decision wants to see."""
        ...

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision: ...


def _checked(threshold: float) -> None:
    if not -1.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold is a cosine similarity in [-1, 1], higher is stricter; got {threshold}")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Serve the nearest entry if its cosine similarity reaches the threshold. The rule of most semantic caches."""

    threshold: float = 0.92
    neighbours: int = 1

    def __post_init__(self) -> None:
        _checked(self.threshold)

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        if not candidates:
            return Decision(None, "empty")
        best = candidates[0]
        if best.score < self.threshold:
            return Decision(None, "below-threshold", best)
        return Decision(best, "above-threshold", best)


@dataclass(frozen=True, slots=True)
class Guarded:
    """Serve the nearest entry that reaches the threshold and that no guard refuses.

    Embeddings hardly see a changed number, name, negation or direction; guards look at just those.
    """

    threshold: float = 0.92
    guards: Sequence[Guard] = field(default=DEFAULT_GUARDS)
    neighbours: int = 4

    def __post_init__(self) -> None:
        _checked(self.threshold)

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        if not candidates:
            return Decision(None, "empty")
        nearest = candidates[0]
        reason = "below-threshold"
        for candidate in candidates:
            if candidate.score < self.threshold:
                break
            refused = refusal(text, candidate.entry.text, self.guards)
            if refused is None:
                return Decision(candidate, "guarded", nearest)
            # The nearest candidate's refusal is the one worth explaining.
            reason = refused if candidate is nearest else reason
        return Decision(None, reason, nearest)
