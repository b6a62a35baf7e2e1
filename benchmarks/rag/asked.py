"""What is asked: a hundred questions, and the same again in other words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.trace import load_questions

AGAIN = Path(__file__).with_name("again.jsonl")
"""The questions as somebody types them a second time: the same group in much the same words. No wording of it was
chosen, or left out, for what an encoder says of it."""

ASKED = 100


@dataclass(frozen=True, slots=True)
class Wordings:
    """One question in its first wording, as it is typed again, and in words of its own where the data has any."""

    group: str
    first: str
    again: str
    freely: str | None


def load_look_alikes() -> list[tuple[str, str]]:
    """Group and text of the questions that look like another and ask something else."""
    questions = load_questions()
    return [(each.group, each.text) for each in questions if each.kind == "hard_negative" and each.lang == "en"]


def load_wordings() -> list[Wordings]:
    """The first hundred English questions of the benchmark's data that are asked more than once."""
    rows = [json.loads(line) for line in AGAIN.read_text("utf-8").splitlines()]
    again = {row["group"]: row["text"] for row in rows}
    questions = [question for question in load_questions() if question.lang == "en"]
    freely: dict[str, str] = {}
    for question in questions:
        if question.kind == "repeat":
            freely[question.group] = question.text
    firsts = [question for question in questions if question.kind == "first"][:ASKED]
    return [
        Wordings(question.group, question.text, again[question.group], freely.get(question.group))
        for question in firsts
    ]
