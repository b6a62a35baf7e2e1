"""Why a question would be answered from the cache, or would not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatch_core import _html
from dispatch_core.equivalence import clusters, same_entry
from dispatch_core.guards import DEFAULT_GUARDS, refusal
from dispatch_core.policy import Policy
from dispatch_core.types import Decision, Match

_WIDTH = 72


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One of the nearest entries: its cosine, its answer as a letter (the same letter, the same answer), and the
    reason why a guard refuses it, or None."""

    score: float
    answer: str
    refusal: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a lookup of ``text`` would come to, and why. Holds texts of others' questions: not for logs."""

    text: str
    hit: bool
    reason: str
    decision: Decision | None = None
    neighbours: Sequence[Neighbour] = field(default=())

    def __str__(self) -> str:
        lines = [f"{'hit' if self.hit else 'miss'}: {self.reason}{self._numbers()}"]
        lines += [
            f"  {n.score:6.3f}  {n.answer}  {n.refusal or 'passes':<14} {_short(n.text)}" for n in self.neighbours
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [(f"{n.score:.3f}", n.answer, n.refusal or "passes", n.text) for n in self.neighbours]
        title = _html.caption("hit" if self.hit else "miss", f": {self.reason}{self._numbers()}")
        return title + _html.listing(("cosine", "answer", "guards", "stored question"), rows)

    def _numbers(self) -> str:
        signals = self.decision.signals if self.decision is not None else {}
        return f" ({', '.join(f'{name} {value:.3g}' for name, value in signals.items())})" if signals else ""


def neighbours_of(text: str, candidates: Sequence[Match], policy: Policy) -> Sequence[Neighbour]:
    """The candidates as a policy sees them: by its own guards and its own idea of the same answer."""
    judge = getattr(policy, "base", policy)
    guards = getattr(judge, "guards", DEFAULT_GUARDS)
    # A tombstone has no answer that could be compared.
    living = [match.entry for match in candidates if not match.entry.tombstone]
    labels = clusters(living, getattr(judge, "same", same_entry))
    letters = {label: chr(ord("A") + number) for number, label in enumerate(dict.fromkeys(labels))}
    answers = iter(letters[label] for label in labels)
    return [
        Neighbour(match.score, next(answers), refusal(text, match.entry.text, guards), match.entry.text)
        if not match.entry.tombstone
        else Neighbour(match.score, "–", "rejected", match.entry.text)
        for match in candidates
    ]


def _short(text: str) -> str:
    line = _html.visible(text)
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
