"""Ask all neighbours: a look-alike may be wrong, but hardly if nothing near contradicts it, or if several agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatch_core.equivalence import Equivalence, clusters, same_entry
from dispatch_core.errors import ConfigError
from dispatch_core.guards import DEFAULT_GUARDS, Guard, read, refusal
from dispatch_core.nonanswer import says_nothing
from dispatch_core.policy import checked_threshold, served
from dispatch_core.types import Decision, Match

_REACH = 0.1
"""Of two neighbours so far apart in cosine, the nearer one's vote counts e times as much."""

CONTESTED = "contested"
"""Reason to serve nothing: an answer that repeats near by contradicts the nearest."""

_LEAST = 0.5
"""The confidence below which even the loosest threshold sees no consensus."""

_SLOPE = 3.125
"""How much confidence a consensus may lack for each 1 of cosine that a lone neighbour may lack: .25 for .08."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """Serve an answer that nothing near contradicts, or on which the neighbours agree.

    Every neighbour votes for its answer, and a vote halves with every 0.07 of cosine. An answer is served

    - as a *near duplicate*, if the nearest entry that no guard refuses reaches ``threshold``, and its answer has at
      least ``clarity`` of the votes that count. A vote against it counts if two or more neighbours carry that other
      answer, for one that is like no other may say the same in other words; and if no guard refuses its entry, for
      that another number, name or direction has another answer is no contradiction;
    - by *consensus*, if at least ``supporters`` of the neighbours carry it, no guard refuses one of these, and its
      share of all votes times the cosine of its nearest entry reaches ``confidence``. The nearest that passes the
      guards is the hit. That many different questions share an answer shows that their differences do not matter
      here; two wordings of one question show nothing, so ``supporters`` is 4, and an excuse ("I don't know") fits
      every question, so it is never served this way.

    ``confidence`` None goes with the threshold: 0.75 at 0.92, 1 at 1. One knob makes both stricter.

    ``same`` says whether two entries carry the same answer. Where answers are worded anew each time, nothing agrees
    and nothing contradicts, and what is left is `Guarded`: plug in a ``same`` that sees through wording, such as
    `AnswersAlike`. Measured in ``benchmarks/cache_quality``.

    Votes weighted by distance are Dudani's (1976), abstaining without a clear majority is Hellman's (1970).
    """

    threshold: float = 0.92
    confidence: float | None = None
    supporters: int = 4
    clarity: float = 0.8
    guards: Sequence[Guard] = field(default=DEFAULT_GUARDS)
    same: Equivalence = same_entry
    neighbours: int = 8

    def __post_init__(self) -> None:
        checked_threshold(self.threshold)
        if self.confidence is not None and not 0.5 < self.confidence <= 1.0:
            raise ConfigError(f"confidence is a share of votes times a cosine in (0.5, 1], got {self.confidence}")
        if not 0.5 < self.clarity <= 1.0:
            raise ConfigError(f"clarity is a share of the votes in (0.5, 1], got {self.clarity}")
        if self.supporters < 2:
            raise ConfigError(f"supporters of a consensus are at least 2, got {self.supporters}")
        if self.neighbours < self.supporters:
            raise ConfigError(f"neighbours are at least as many as supporters ({self.supporters}): {self.neighbours}")

    def decide(self, text: str, candidates: Sequence[Match]) -> Decision:
        return self.grade(text, candidates, floor=self.threshold)

    def grade(self, text: str, candidates: Sequence[Match], *, floor: float) -> Decision:
        """What a threshold of ``floor`` would serve; of two ways, the surer."""
        if not candidates:
            return Decision(None, "empty")
        poll = _Poll(text, candidates, self.guards, self.same)
        lone, agreed = self._near_duplicate(poll, floor), self._agreed(poll, floor)
        if lone.candidate is not None and lone.level >= agreed.level:
            return lone
        if agreed.candidate is not None:
            return agreed
        # A near duplicate that was refused says more than that too few agreed.
        return agreed if lone.reason == "below-threshold" else lone

    def read(self, text: str) -> None:
        read(text, self.guards)

    def _near_duplicate(self, poll: _Poll, floor: float) -> Decision:
        nearest = poll.ranked[0]
        reason = "below-threshold"
        for place, candidate in enumerate(poll.ranked):
            if not candidate.score >= floor:
                break
            refused = poll.refusal(place)
            if refused is None:
                share = poll.clarity(place, self.clarity)
                if share < self.clarity:
                    return Decision(None, CONTESTED, nearest, signals={"cosine": candidate.score, "share": share})
                return served(
                    candidate, "near-duplicate", nearest, candidate.score, cosine=candidate.score, share=share
                )
            reason = refused if place == 0 else reason
        return Decision(None, reason, nearest)

    def _agreed(self, poll: _Poll, floor: float) -> Decision:
        nearest = poll.ranked[0]
        label, share = poll.winner()
        its = [place for place, other in enumerate(poll.labels) if other == label]
        confidence = share * max(0.0, poll.ranked[its[0]].score)
        signals = {"cosine": nearest.score, "share": share, "supporters": float(len(its))}
        if len(its) < self.supporters or not (share > 0.5 and confidence >= self._confidence(floor)):
            return Decision(None, "below-threshold", nearest, signals=signals)
        if says_nothing(poll.ranked[label].entry):
            return Decision(None, "non-answer", nearest, signals=signals)
        passing = next((place for place in its if poll.refusal(place) is None), None)
        if passing is None:
            return Decision(None, poll.refusal(its[0]) or "", nearest, signals=signals)
        return served(poll.ranked[passing], "consensus", nearest, self._threshold(confidence), **signals)

    def _slope(self) -> float:
        if self.confidence is None or self.threshold == 1.0:
            return _SLOPE
        return (1.0 - self.confidence) / (1.0 - self.threshold)

    def _confidence(self, threshold: float) -> float:
        """The confidence that a consensus needs where a lone neighbour needs this threshold."""
        if threshold == self.threshold and self.confidence is not None:
            return self.confidence
        return max(_LEAST, 1.0 - (1.0 - threshold) * self._slope())

    def _threshold(self, confidence: float) -> float:
        slope = self._slope()
        return 1.0 - (1.0 - confidence) / slope if slope else float(confidence >= 1.0)


class _Poll:
    """The neighbours' votes, and what guards say of them, asked once and only if it matters."""

    def __init__(self, text: str, candidates: Sequence[Match], guards: Sequence[Guard], same: Equivalence) -> None:
        # Sorted anew, so that neither the order of equals nor the rounding of sums depends on the store.
        self.ranked = sorted(candidates, key=lambda match: (-match.score, match.entry.id))
        self.labels = clusters([match.entry for match in self.ranked], same)
        self.votes = [math.exp((match.score - 1.0) / _REACH) for match in self.ranked]
        self._text = text
        self._guards = guards
        self._refusals: dict[int, str | None] = {}

    def refusal(self, place: int) -> str | None:
        if place not in self._refusals:
            self._refusals[place] = refusal(self._text, self.ranked[place].entry.text, self._guards)
        return self._refusals[place]

    def won(self) -> Mapping[int, float]:
        """The votes of each answer; the nearest answer first."""
        sums = dict.fromkeys(self.labels, 0.0)
        for label, vote in zip(self.labels, self.votes, strict=True):
            sums[label] += vote
        return sums

    def winner(self) -> tuple[int, float]:
        """The answer with most votes, and its share of all."""
        sums = self.won()
        label = max(sums, key=sums.__getitem__)
        return label, sums[label] / sum(sums.values())

    def clarity(self, place: int, enough: float) -> float:
        """The share of this entry's answer among the votes that count: exact below ``enough``, else a lower bound."""
        label = self.labels[place]
        won, against = 0.0, []
        for other, (its, vote) in enumerate(zip(self.labels, self.votes, strict=True)):
            if its == label:
                won += vote
            elif self.labels.count(its) > 1 and not says_nothing(self.ranked[its].entry):
                against.append((vote, other))
        lost = sum(vote for vote, _ in against)
        for vote, other in against:
            if won >= enough * (won + lost):
                break
            if self.refusal(other) is not None:
                lost -= vote
        return won / (won + lost)
