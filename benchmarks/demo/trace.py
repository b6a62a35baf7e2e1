"""The trace: which question is asked when. The same for every arm of a run."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
QUESTIONS = DATA / "questions.jsonl"
ANSWERS = DATA / "answers.jsonl"
HANDBOOK = DATA / "handbook"


@dataclass(frozen=True, slots=True)
class Question:
    """``group`` names the meaning: two questions of one group have one right answer."""

    text: str
    group: str
    kind: str
    lang: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A question and when it is asked, in seconds from the start of the replay."""

    at: float
    question: Question


def load_questions(path: Path = QUESTIONS) -> list[Question]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [Question(row["text"], row["group"], row["kind"], row["lang"]) for row in rows]


def load_answers(path: Path = ANSWERS) -> dict[str, str]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["group"]: row["answer"] for row in rows}


def make_trace(questions: list[Question], *, rate: float, seed: int) -> list[Arrival]:
    """All questions once, shuffled, arriving as a Poisson stream of ``rate`` per second."""
    draw = random.Random(seed)
    shuffled = draw.sample(questions, len(questions))
    arrivals, now = [], 0.0
    for question in shuffled:
        now += draw.expovariate(rate)
        arrivals.append(Arrival(now, question))
    return arrivals


def repeats(trace: list[Arrival]) -> int:
    """How many arrivals ask what an earlier one has asked."""
    return len(trace) - len({arrival.question.group for arrival in trace})
