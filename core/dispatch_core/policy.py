"""Is this neighbour the same question? Pure decisions over the candidates of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from typing import Protocol

from dispatch_core.equivalence import Equivalence, clusters, same_entry
from dispatch_core.errors import ConfigError
from dispatch_core.guards import DEFAULT_GUARDS, Guard, refusal
from dispatch_core.types import Match


@dataclass(frozen=True, slots=True)
class Decision:
    """``hit`` is the entry to serve or None; ``reason`` says why, ``nearest`` is the best candidate seen."""

    hit: Match | None
    reason: str
    nearest: Match | None = None


_REACH = 0.1
"""Of two neighbours so far apart in cosine, the nearer one's vote counts e times as much."""


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


@dataclass(frozen=True, slots=True)
class Consensus:
    """Serve the answer on which the neighbours agree: one look-alike may be wrong, several seldom err together.

    Every neighbour votes for its answer, and a vote halves with every 0.07 of cosine. The answer with the most votes
    is served if

    - it has ``agreement`` of all votes, a share in (0.5, 1];
    - at least two neighbours that reach ``threshold`` carry it;
    - no guard refuses one of these, and the nearest such is the hit. The others may be refused: neighbours that agree
      in spite of a difference show that it does not matter here.

    An answer that nothing else shares is found too: if its entry reaches ``alone``, no other answer comes within 0.1
    of it, and no guard refuses it. None closes this way.

    ``same`` says whether two entries carry the same answer. Meant for caches whose answers repeat: support, intents,
    look-ups in documents. Where every answer is worded anew, plug in a ``same`` that sees through wording, or use
    `Guarded`. Measured in ``benchmarks/cache_quality``.

    Votes weighted by distance are Dudani's (1976), abstaining without a clear majority is Hellman's (1970).
    """

    threshold: float = 0.7
    agreement: float = 0.9
    alone: float | None = 0.95
    guards: Sequence[Guard] = field(default=DEFAULT_GUARDS)
    same: Equivalence = same_entry
    neighbours: int = 8

    def __post_init__(self) -> None:
        _checked(self.threshold)
        if not 0.5 < self.agreement <= 1.0:
            raise ConfigError(f"agreement is a share of the votes in (0.5, 1], got {self.agreement}")
        if self.alone is not None and not self.threshold <= self.alone <= 1.0:
            raise ConfigError(f"alone is a cosine similarity from the threshold to 1, or None; got {self.alone}")
        if self.neighbours < 2:
            raise ConfigError(f"a consensus needs at least 2 neighbours, got {self.neighbours}")

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        if not candidates:
            return Decision(None, "empty")
        # Sorted anew, so that neither the order of equals nor the rounding of sums depends on the store.
        ranked = sorted(candidates, key=lambda match: (-match.score, match.entry.id))
        nearest = ranked[0]
        if nearest.score < self.threshold:
            return Decision(None, "below-threshold", nearest)
        labels = clusters([match.entry for match in ranked], self.same)
        agreed = self._agreed(ranked, labels)
        lone = [match for match in self._lone(ranked, labels) if match not in agreed]
        # Guards come last and stop at the first entry that passes: they cost more than all of the above.
        refusals = []
        for candidate in (*agreed, *lone):
            refused = refusal(text, candidate.entry.text, self.guards)
            if refused is None:
                return Decision(candidate, "near-duplicate" if candidate in lone else "consensus", nearest)
            refusals.append(refused)
        return Decision(None, refusals[0] if refusals else "no-consensus", nearest)

    def _agreed(self, ranked: Sequence[Match], labels: Sequence[int]) -> Sequence[Match]:
        """The two or more that reach the threshold and carry the answer with enough of the votes, best first."""
        votes = [math.exp((match.score - 1.0) / _REACH) for match in ranked]
        for label in dict.fromkeys(labels):
            its = [other == label for other in labels]
            won, lost = sum(compress(votes, its)), sum(compress(votes, map(not_, its)))
            # Not the share itself: products keep their order under rounding.
            if won * (1.0 - self.agreement) >= lost * self.agreement:
                witnesses = [match for match in compress(ranked, its) if match.score >= self.threshold]
                return witnesses if len(witnesses) >= 2 else ()
        return ()

    def _lone(self, ranked: Sequence[Match], labels: Sequence[int]) -> Sequence[Match]:
        """Those as near as a duplicate, if no other answer is near."""
        if self.alone is None or ranked[0].score < self.alone:
            return ()
        others = (match.score for match, label in zip(ranked, labels, strict=True) if label != labels[0])
        if ranked[0].score - next(others, -math.inf) < _REACH:
            return ()
        return [m for m, label in zip(ranked, labels, strict=True) if label == labels[0] and m.score >= self.alone]
