"""Tuned here, reported there: what a setting promises on questions, and on intents, that did not choose it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.questions import Corpus
from benchmarks.cache_quality.run import figures
from benchmarks.cache_quality.stream import stream
from dispatch_core.calibrate.choose import Figures
from dispatch_core.calibrate.replay import Stream, replay, same_payload
from dispatch_core.calibrate.vectors import Embedded

_TARGET = 0.01
_STEPS = (0.97, 0.95, 0.93, 0.91, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.77, 0.74, 0.7, 0.65)
_SEED = 7
Known = tuple[Corpus, Embedded]


def folds(known: Sequence[Known], *, seeds: int, limit: int) -> str:
    """The loosest threshold of `Consensus` with at most 1 % error per hit on one half, and what it does elsewhere."""
    lines = [f"Consensus tuned for ≤ {_TARGET:.0%} error per hit: hits %, error per hit % [95 % interval]"]
    for corpus, vectors in known:
        for kind in ("questions", "intents"):
            halves = [_streams(part, seeds, limit) for part in _halves(corpus, vectors, kind)]
            others = [(c.name, _streams((c, v), seeds, limit)) for c, v in known if c is not corpus]
            for inside, outside in (halves, halves[::-1]):
                setting, found = _tuned(inside)
                if found is None:
                    lines.append(f"  {corpus.name}, half of the {kind}: no setting is good enough")
                    continue
                texts = [f"in sample {_text(found)}", f"other half {_text(_measured(outside, setting))}"]
                texts += [f"{name} {_text(_measured(streams, setting))}" for name, streams in others]
                lines.append(f"  {corpus.name}, half of the {kind}, threshold {setting:g}: " + "; ".join(texts))
    return "\n".join(lines)


def _halves(corpus: Corpus, vectors: Embedded, kind: str) -> tuple[Known, Known]:
    rows = range(len(corpus.texts))
    names = list(rows) if kind == "questions" else sorted(set(corpus.answers))
    chosen = set(random.Random(_SEED).sample(names, len(names) // 2))
    first = [row for row in rows if (row if kind == "questions" else corpus.answers[row]) in chosen]
    second = sorted(set(rows) - set(first))
    return _part(corpus, vectors, first), _part(corpus, vectors, second)


def _part(corpus: Corpus, vectors: Embedded, rows: Sequence[int]) -> Known:
    texts, answers = ([every[row] for row in rows] for every in (corpus.texts, corpus.answers))
    return Corpus(corpus.name, corpus.title, texts, answers), Embedded(vectors.vectors[rows], vectors.readable[rows])


def _streams(known: Known, seeds: int, limit: int) -> list[Stream]:
    return [stream(*known, seed=seed, limit=limit) for seed in range(1, seeds + 1)]


def _tuned(streams: Sequence[Stream]) -> tuple[float, Figures | None]:
    best: tuple[float, Figures | None] = 1.0, None
    for setting in _STEPS:
        measured = _measured(streams, setting)
        if measured.per_hit <= _TARGET and (best[1] is None or measured.hits > best[1].hits):
            best = setting, measured
        if measured.per_hit > 1.5 * _TARGET:
            break
    return best


def _measured(streams: Sequence[Stream], setting: float) -> Figures:
    policy = ARMS["consensus"].make(setting)
    outcomes = (replay(one, policy, same_payload(one.entries)) for one in streams)
    return sum(map(figures, outcomes), Figures(0, 0, 0))


def _text(figures: Figures) -> str:
    low, high = figures.interval
    return f"{100 * figures.hit_rate:.1f} at {100 * figures.per_hit:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
