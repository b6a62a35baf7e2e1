"""What a file holds: questions in the order of asking with their answers, or labelled pairs of questions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from. ``skipped`` counts bad rows by reason, ``first`` has the line of each one's first.

    ``more`` says that rows beyond the limit were left unread; ``rows`` are all that were read, good and bad.
    """

    name: str
    columns: Sequence[str]
    rows: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """Questions in the order of asking and the right answer of each: free text, or the name of one."""

    source: Source
    questions: Sequence[str]
    answers: Sequence[str]

    @property
    def runs(self) -> float:
        """The share of questions with the answer of the question before: near 1 in a file sorted by answers."""
        same = sum(a == b for a, b in zip(self.answers, self.answers[1:], strict=False))
        return same / max(1, len(self.answers) - 1)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of different questions; ``same`` says of each whether one answer does for both."""

    source: Source
    one: Sequence[str]
    other: Sequence[str]
    same: Sequence[bool]

    def log(self) -> Log:
        """Every question once, in the order of the file; those joined by a chain of duplicates have one answer.

        Duplicates that nobody labelled have two answers, so errors are rather counted too often than too seldom.
        """
        answers = chains(zip(self.one, self.other, self.same, strict=True))
        return Log(self.source, list(answers), list(answers.values()))

    @property
    def contradictions(self) -> int:
        """Pairs labelled different that a chain of duplicates joins."""
        answers = chains(zip(self.one, self.other, self.same, strict=True))
        rows = zip(self.one, self.other, self.same, strict=True)
        return sum(answers[one] == answers[other] for one, other, same in rows if not same)


def chains(pairs: Iterable[tuple[str, str, bool]]) -> dict[str, str]:
    """For each text one that stands for all its duplicates, and their duplicates."""
    parents: dict[str, str] = {}

    def root(text: str) -> str:
        while parents.setdefault(text, text) != text:
            parents[text] = text = parents[parents[text]]
        return text

    for one, other, same in pairs:
        ends = root(one), root(other)
        if same:
            parents[ends[0]] = ends[1]
    return {text: root(text) for text in list(parents)}
