"""From a log to a recommendation: embed, replay every setting of every policy, choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dispatch_core.calibrate import pairs as by_pairs
from dispatch_core.calibrate.answers import Answers
from dispatch_core.calibrate.choose import (
    Choice,
    Figures,
    Recommendation,
    Trial,
    choose,
    halves,
    recommend,
)
from dispatch_core.calibrate.families import FAMILIES, Family, quickened
from dispatch_core.calibrate.log import Log, Pairs, Source
from dispatch_core.calibrate.progress import Advance, Progress, silent
from dispatch_core.calibrate.replay import Judge, Outcome, numbered, replay, stream
from dispatch_core.calibrate.vectors import embedded, embedded_answers
from dispatch_core.equivalence import Equivalence, same_entry
from dispatch_core.errors import ConfigError
from dispatch_core.policy import Policy
from dispatch_core.ports import Embedder

TARGETS = (0.01, 0.02, 0.05)
"""Errors per hit that every report looks at."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked, what every setting made of it, and what is recommended.

    ``asked`` counts questions, or pairs if ``pairwise``. ``exact`` is what exact matching alone would have served;
    ``exact_only`` counts by reason the different questions that are never compared by meaning. ``runs`` is the share
    of questions that have the answer of the question before; ``same_cosine`` is as it was given.
    """

    source: Source
    embedder: str
    pairwise: bool
    asked: int
    questions: int
    answers: int
    exact: Figures
    exact_only: Mapping[str, int]
    trials: Sequence[Trial]
    choices: Sequence[Choice]
    recommendation: Recommendation
    runs: float = 0.0
    contradictions: int = 0
    same_cosine: float | None = None


def calibrate(
    data: Log | Pairs,
    embedder: Embedder,
    *,
    max_error: float = 0.01,
    families: Sequence[Family] = tuple(FAMILIES.values()),
    same_cosine: float | None = None,
    pairwise: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> Report:
    """Try every setting of the families on the user's own questions.

    ``max_error`` is the share of wrong answers among the hits that the recommendation may have at most, in (0, 1).
    Answers are the same by their text; with ``same_cosine`` also from that cosine on, if their numbers agree.
    Pairs become a log by chains of duplicates unless ``pairwise``: then each pair is judged alone, by the policies
    that can decide with one neighbour. ``seed`` draws the halves. Raises `ConfigError`, `EmbeddingError`.
    """
    if not 0 < max_error < 1:
        raise ConfigError(f"max_error is a share of the hits in (0, 1), got {max_error}")
    if same_cosine is not None and not -1 <= same_cosine <= 1:
        raise ConfigError(f"answers are the same from a cosine in [-1, 1] on, got {same_cosine}")
    if pairwise and not isinstance(data, Pairs):
        raise ConfigError(f"{data.source.name} is a log: pair by pair needs two questions and a label in each row")
    if pairwise and isinstance(data, Pairs):
        run = _pairwise(data, embedder, progress)
        families = [family for family in families if family.alone]
    else:
        run = _logged(data.log() if isinstance(data, Pairs) else data, embedder, same_cosine, progress)
    trials = _trials(run, families, progress)
    half = halves(run.groups, seed)
    targets = sorted({*TARGETS, max_error})
    return Report(
        source=data.source,
        embedder=embedder.model,
        pairwise=pairwise,
        asked=len(run.groups),
        questions=run.questions,
        answers=run.answers,
        exact=run.exact,
        exact_only=run.exact_only,
        trials=trials,
        choices=[
            choose(f, [t for t in trials if t.family is f], target, half) for target in targets for f in families
        ],
        recommendation=recommend(trials, max_error, half),
        runs=data.runs if isinstance(data, Log) else 0.0,
        contradictions=data.contradictions if isinstance(data, Pairs) else 0,
        same_cosine=same_cosine,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """Everything about the questions that no policy changes. ``groups`` are what a half has whole."""

    outcome: Callable[[Policy, Advance], Outcome]
    same: Equivalence
    groups: NDArray[np.int64]
    questions: int
    answers: int
    exact: Figures
    exact_only: Mapping[str, int]


def _logged(log: Log, embedder: Embedder, same_cosine: float | None, progress: Progress) -> _Run:
    answers = Answers(log.answers)
    text_of, texts = numbered(log.questions)
    right = answers.by_text()
    if same_cosine is not None:
        right = answers.by_cosine(embedded_answers(answers.texts, embedder, progress), same_cosine)
    vectors = embedded(texts, embedder, progress)
    asked = stream(log.questions, log.answers, vectors, progress=progress)
    return _Run(
        outcome=lambda policy, advance: replay(asked, policy, right, advance),
        same=answers.equivalence,
        groups=np.array(text_of, dtype=np.int64),
        questions=len(texts),
        answers=len(answers.texts),
        exact=_exact(text_of, right),
        exact_only=vectors.reasons,
    )


def _pairwise(pairs: Pairs, embedder: Embedder, progress: Progress) -> _Run:
    texts = by_pairs.questions(pairs)
    vectors = embedded(texts, embedder, progress)
    return _Run(
        outcome=lambda policy, advance: by_pairs.judge(pairs, vectors, policy, advance),
        same=same_entry,
        groups=np.array(numbered(pairs.one)[0], dtype=np.int64),
        questions=len(texts),
        answers=0,
        exact=Figures(len(pairs.one), 0, 0),
        exact_only=vectors.reasons,
    )


def _exact(text_of: Sequence[int], right: Judge) -> Figures:
    """Each repetition of a text is served what its first asking was answered."""
    first: dict[int, int] = {}
    again = [(asked, first[text]) for asked, text in enumerate(text_of) if first.setdefault(text, asked) != asked]
    return Figures(len(text_of), len(again), sum(not right(*pair) for pair in again))


def _trials(run: _Run, families: Sequence[Family], progress: Progress) -> list[Trial]:
    trials = []
    for family in families:
        with progress(f"asking {family.title}", len(run.groups) * len(family.sweep)) as advance:
            for setting in family.sweep:
                outcome = run.outcome(quickened(family.make(setting), run.same), advance)
                hit = outcome.semantic
                trials.append(Trial(family, setting, hit, outcome.wrong & hit, run.groups, int(outcome.exact.sum())))
    return trials
