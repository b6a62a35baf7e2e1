"""Why a question would be answered from the cache, or would not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

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
        rows = "".join(
            f"<tr><td>{n.score:.3f}</td><td>{n.answer}</td><td>{escape(n.refusal or 'passes')}</td>"
            f"<td style='text-align:left'>{escape(_visible(n.text))}</td></tr>"
            for n in self.neighbours
        )
        head = (
            "<tr><th>cosine</th><th>answer</th><th>guards</th><th style='text-align:left'>stored question</th></tr>"
        )
        title = f"<p><b>{'hit' if self.hit else 'miss'}</b>: {escape(self.reason + self._numbers())}</p>"
        return title + (f"<table>{head}{rows}</table>" if rows else "")

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


def _visible(text: str) -> str:
    """In one line, and without what a terminal or a browser would obey or cannot show."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _short(text: str) -> str:
    line = _visible(text)
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
