"""Which units matter for a question: by meaning, by shared words, by what stands next to them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dispatch_core.compress.units import Unit
from dispatch_core.types import Matrix, Vector

Scores: TypeAlias = NDArray[np.floating[Any]]

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\W_]+(?:[.,:'’-][^\W_]+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STEM = 5
"""Letters of a word that are compared: a crude stem, which is the same rule in every language."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each sign counts beside the cosine of unit and question, and what a repetition costs.

    ``words`` is for words that both have, rare ones first; ``above`` is how much of that its headings bring a unit;
    ``beside`` is the share of its neighbour's score that a unit of the same paragraph gets. ``diversity`` is 1 − λ of
    maximal marginal relevance (Carbonell & Goldstein, 1998): from 0, relevance alone, to 1.
    """

    words: float = 1.0
    above: float = 0.5
    beside: float = 0.3
    diversity: float = 0.2


def terms(text: str) -> frozenset[str]:
    """The words of a text as they are compared: stems, whole numbers, and pairs of characters where no space divides
    words."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        if _CJK.match(word):
            found.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) > 1 or word.isdigit():
            found.add(word if word[0].isdigit() else word[:_STEM])
    return frozenset(found)


def relevance(question: str, units: Sequence[Unit], asked: Vector, vectors: Matrix, weights: Weights) -> Scores:
    """One number per unit; higher matters more. ``vectors`` has one unit row for each of them."""
    held = [terms(unit.text) for unit in units]
    wanted = _rarity(terms(question), held)
    shared = np.array([_share(wanted, own) for own in held], dtype=np.float32)
    brought = np.array(
        [_share(wanted, _union(held, unit.parents) - own) for unit, own in zip(units, held, strict=True)],
        dtype=np.float32,
    )
    scores = vectors @ asked + weights.words * (shared + weights.above * brought)
    return scores + weights.beside * _beside(scores, [unit.block for unit in units])


def _rarity(wanted: Iterable[str], held: Sequence[frozenset[str]]) -> dict[str, float]:
    """The share of each term of the question, the more the fewer units have it; the shares add up to 1."""
    weight = {term: float(np.log1p(len(held) / (1 + sum(term in own for own in held)))) for term in wanted}
    total = sum(weight.values())
    return {term: one / total for term, one in weight.items()} if total else {}


def _share(wanted: dict[str, float], own: Iterable[str]) -> float:
    return sum(wanted.get(term, 0.0) for term in own)


def _union(held: Sequence[frozenset[str]], numbers: Iterable[int]) -> frozenset[str]:
    return frozenset().union(*(held[number] for number in numbers))


def _beside(scores: Scores, blocks: Sequence[int]) -> Scores:
    """The better of the two neighbours in the same paragraph, 0 without one."""
    same = np.array([left == right for left, right in pairwise(blocks)], dtype=bool)
    best = np.zeros_like(scores)
    if same.any():
        before = np.where(same, scores[:-1], 0.0)
        after = np.where(same, scores[1:], 0.0)
        best[1:] = before
        best[:-1] = np.maximum(best[:-1], after)
    return best


def chosen(
    scores: Scores, vectors: Matrix, units: Sequence[Unit], costs: Sequence[int], *, room: int, diversity: float
) -> list[int]:
    """The units to keep, best first, each after the parents it needs; their costs together are at most ``room``.

    The first is kept whatever it costs: a context without anything in it would be no context. What is fixed is not
    among them, and costs nothing here.
    """
    open_ = np.array([not (unit.label or unit.fixed) for unit in units], dtype=bool)
    repeats = np.zeros(len(units), dtype=np.float32)
    kept: dict[int, None] = {}
    while open_.any():
        worth = np.where(open_, (1 - diversity) * scores - diversity * repeats, -np.inf)
        best = int(worth.argmax())
        open_[best] = False
        needed = [number for number in (*units[best].parents, best) if number not in kept]
        price = sum(costs[number] for number in needed if not units[number].fixed)
        if kept and price > room:
            continue
        room -= price
        kept.update(dict.fromkeys(needed))
        repeats = np.maximum(repeats, vectors @ vectors[best])
    return list(kept)
