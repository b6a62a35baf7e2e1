"""The trace: who asks what and when. Made once for a seed, replayed identically in every arm."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.demo.trace import Arrival, Question
from benchmarks.load_test.regime import Regime


def make_trace(questions: Sequence[Question], regime: Regime, *, seed: int) -> list[Arrival]:
    """A Poisson stream of questions, shuffled; ``regime.repeats`` of them ask what an earlier one has asked.

    The repeats are other wordings of their group, each at most once, or (``regime.verbatim``) its first one again.
    What is asked once are hard negatives as far as there is room for them, then any others. Raises ValueError when
    there are too few questions.
    """
    draw = random.Random(f"trace:{seed}")
    wordings: dict[str, list[Question]] = defaultdict(list)
    for question in draw.sample(questions, len(questions)):
        wordings[question.group].append(question)
    repeats = round(regime.arrivals * regime.repeats)
    verbatim = round(repeats * regime.verbatim)
    others = [question for group in wordings.values() for question in group[1:]]
    if len(others) < repeats - verbatim or len(wordings) < regime.arrivals - repeats:
        raise ValueError(f"{len(questions)} questions are too few for {regime.arrivals} arrivals")
    reworded = draw.sample(others, repeats - verbatim)
    asked_again = list(dict.fromkeys(question.group for question in reworded))
    once = [group for group in wordings if group not in set(asked_again)]
    once.sort(key=lambda group: all(question.kind != "hard_negative" for question in wordings[group]))
    first = [wordings[group][0] for group in (asked_again + once)[: regime.arrivals - repeats]]
    asked = first + reworded + draw.choices(first, k=verbatim)
    arrivals, now = [], 0.0
    for question in draw.sample(asked, len(asked)):
        now += draw.expovariate(regime.rate)
        arrivals.append(Arrival(now, question))
    return arrivals


def repeated(trace: Sequence[Arrival]) -> list[bool]:
    """For each arrival: has an earlier one asked the same?"""
    seen: set[str] = set()
    found = []
    for arrival in trace:
        found.append(arrival.question.group in seen)
        seen.add(arrival.question.group)
    return found


def write_trace(trace: Sequence[Arrival], path: Path) -> None:
    """As JSON Lines of ``at`` (seconds) and ``text``: all that whoever asks may know."""
    rows = (json.dumps({"at": arrival.at, "text": arrival.question.text}) for arrival in trace)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
