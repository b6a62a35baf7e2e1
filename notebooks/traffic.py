"""Questions as they come to a help desk, and what became of each: for the notebooks."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.demo.trace import Question, load_answers, load_questions

RIGHT = load_answers()
"""The one right answer of each meaning, by its name."""


_HABITS: Sequence[Callable[[str], str]] = (
    lambda text: text,
    lambda text: text.lower().rstrip("?."),
    lambda text: f"Hi! {text}",
    lambda text: f"{text.rstrip('?.')}, please?",
    lambda text: f"Hello, quick question: {text[0].lower()}{text[1:]}",
    lambda text: f"{text} Thanks!",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: when it was to be asked and how long the answer took, in seconds; the reply, or the error."""

    question: Question
    at: float
    seconds: float
    reply: Any
    error: str | None


def english() -> list[Question]:
    """The English questions of Lumen Cycles, a shop that does not exist."""
    return [question for question in load_questions() if question.lang == "en"]


def help_desk(count: int, *, seed: int = 1) -> list[Question]:
    """So many askings: a few meanings are popular and most are rare (Zipf), each in any of its wordings, and typed as
    people type."""
    draw = random.Random(seed)
    wordings: dict[str, list[Question]] = {}
    for question in english():
        wordings.setdefault(question.group, []).append(question)
    meanings = draw.sample(list(wordings), len(wordings))
    popularity = [1 / rank for rank in range(1, len(meanings) + 1)]
    drawn = [draw.choice(wordings[meaning]) for meaning in draw.choices(meanings, popularity, k=count)]
    return [replace(question, text=draw.choice(_HABITS)(question.text)) for question in drawn]


def written(questions: Sequence[Question], folder: Path) -> Path:
    """A file from which the simulated provider knows what these questions mean."""
    path = folder / "questions.jsonl"
    rows = dict.fromkeys((question.group, question.text) for question in questions)
    path.write_text("\n".join(json.dumps({"group": group, "text": text}) for group, text in rows), encoding="utf-8")
    return path


def repeats(questions: Sequence[Question]) -> list[bool]:
    """Of each question, whether its meaning was asked before: what a perfect cache would serve."""
    meanings = [question.group for question in questions]
    return [meaning in meanings[:number] for number, meaning in enumerate(meanings)]


async def replay(
    questions: Sequence[Question],
    ask: Callable[[str], Awaitable[Any]],
    *,
    rate: float,
    seed: int = 1,
    on_done: Callable[[], object] = lambda: None,
) -> list[Asked]:
    """Ask ``rate`` questions a second, at random times, whatever became of those before (an open loop)."""
    draw, now, start = random.Random(seed), 0.0, time.perf_counter()

    async def one(question: Question, at: float) -> Asked:
        await asyncio.sleep(at - (time.perf_counter() - start))
        reply, error = None, None
        try:
            reply = await ask(question.text)
        except Exception as failure:  # a failed call is a result: it is counted, not hidden
            error = type(failure).__name__
        on_done()
        return Asked(question, at, time.perf_counter() - start - at, reply, error)

    return await asyncio.gather(*(one(question, now := now + draw.expovariate(rate)) for question in questions))
