"""Which answer is right for which question: meaning groups, read from two JSON Lines files.

``questions.jsonl`` has rows ``{"group": ..., "text": ...}`` (other fields are ignored here): texts of one
group ask the same thing. ``answers.jsonl`` has rows ``{"group": ..., "answer": ...}``. A question nobody
listed is a group of its own, with an answer made from its hash that belongs to no other group.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dispatch_core.errors import ConfigError
from dispatch_core.simulate.text import count, digest

_ASKED = re.compile(r"\s*(?:query|question|q)\s*:\s*(\S.*)", re.IGNORECASE)
_WORDS = (
    *("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "kiln"),
    *("lagoon", "meadow", "nook", "olive", "pier", "quarry", "ridge", "summit", "tundra", "upland"),
    *("vale", "willow", "yard", "zenith", "anchor", "bridge", "canal", "dune", "elm"),
)
GENERATED_TOKENS = (20, 80)


def normal(text: str) -> str:
    """The form in which two questions are compared: case folded, white space collapsed, ends stripped."""
    return " ".join(text.casefold().split())


def _rows(path: Path | None, first: str, second: str) -> Iterator[tuple[str, str]]:
    if path is None:
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row: Any = json.loads(line)
                pair = str(row[first]), str(row[second])
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}:{number}: expected an object with {first} and {second}") from error
            yield pair


class AnswerBook:
    """Questions by meaning, and the one right answer for each meaning."""

    def __init__(self, groups: Mapping[str, str], answers: Mapping[str, str]) -> None:
        """`groups` maps question texts to group ids, `answers` group ids to answer texts.

        Raises `ConfigError` when one question (in normal form) is in two groups.
        """
        self._groups: dict[str, str] = {}
        for text, group in groups.items():
            self._add(text, group)
        self._answers = dict(answers)

    @classmethod
    def load(cls, questions: Path | None = None, answers: Path | None = None) -> AnswerBook:
        """Read both files; None reads nothing. Raises `ConfigError` naming a line that is not as expected."""
        book = cls({}, dict(_rows(answers, "group", "answer")))
        for group, text in _rows(questions, "group", "text"):
            book._add(text, group)
        return book

    def _add(self, text: str, group: str) -> None:
        other = self._groups.setdefault(normal(text), group)
        if other != group:
            raise ConfigError(f"the question {text!r} is in two groups: {other!r} and {group!r}")

    def question_in(self, prompt: str) -> str:
        """The question a user message asks.

        The whole message if it is a known question; else what follows ``Query:``, ``Question:`` or ``Q:``
        at the start of a line (the last such line); else the last line that is a known question; else the
        whole message.
        """
        if normal(prompt) in self._groups:
            return prompt
        lines = prompt.splitlines()
        for line in reversed(lines):
            if asked := _ASKED.match(line):
                return asked[1].strip()
        for line in reversed(lines):
            if normal(line) in self._groups:
                return line.strip()
        return prompt

    def group_of(self, prompt: str) -> str:
        """The meaning group of the question in `prompt`."""
        known = self.listed(prompt)
        return known if known is not None else f"u{digest(normal(self.question_in(prompt)))}"

    def listed(self, prompt: str) -> str | None:
        """The meaning group of the question in `prompt`; None if nobody listed it."""
        return self._groups.get(normal(self.question_in(prompt)))

    def knows(self, group: str) -> bool:
        """Was the answer for `group` listed?"""
        return group in self._answers

    def answer(self, group: str) -> str:
        """The right answer for `group`: from the file, or made from the group's name (20 to 80 tokens)."""
        known = self._answers.get(group)
        return known if known is not None else _generated(group)

    def judge(self, question_text: str, answer_text: str) -> bool:
        """Is this the right answer for the question's group? It must be whole: a cut one is not right."""
        return normal(answer_text) == normal(self.answer(self.group_of(question_text)))


def _generated(group: str) -> str:
    tag = digest(group)
    dice = random.Random(tag)
    text = f"Simulated answer {tag}:"
    wanted = dice.randint(*GENERATED_TOKENS) - count(text) - 1
    return f"{text} {' '.join(dice.choice(_WORDS) for _ in range(wanted))}."
