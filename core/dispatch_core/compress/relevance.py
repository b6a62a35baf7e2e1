"""Which units matter for a question: by meaning, by shared words, by what stands next to them. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    beside: float = 0.15
    diversity: float = 0.2


def terms(text: str) -> frozenset[str]:
    """What of a question is looked for: stems, numbers, and pairs of characters where no space divides words."""
    found: set[str] = set()
    for word in _WORD.findall(text.casefold()):
        if _CJK.match(word):
            found.update(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) > 1 or word.isdigit():
            found.add(word if word[0].isdigit() else word[:_STEM])
    return frozenset(found)


def relevance(question: str, units: Sequence[Unit], asked: Vector, vectors: Matrix, weights: Weights) -> Scores:
    """One number per unit; higher matters more. ``vectors`` has one unit row for each of them."""
    held = _shared(terms(question), [unit.text for unit in units])
    wanted = _rarity(held)
    own = np.array([_share(wanted, terms) for terms in held])
    above = np.array(
        [
            _share(wanted, frozenset().union(*(held[number] for number in unit.parents)) - terms)
            for unit, terms in zip(units, held, strict=True)
        ]
    )
    scores = vectors @ asked + weights.words * (own + weights.above * above)
    return scores + weights.beside * _beside(scores, [unit.block for unit in units])


def _shared(wanted: Iterable[str], texts: Iterable[str]) -> list[frozenset[str]]:
    """Which of the terms each text holds."""
    pairs = [term for term in wanted if _CJK.match(term)]
    words = [_pattern(term) for term in sorted(set(wanted) - set(pairs), key=len, reverse=True)]
    find = re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})").findall if words else None
    held = []
    for text in texts:
        low = text.casefold()
        found = frozenset(find(low)) if find is not None else frozenset[str]()
        held.append(found.union(pair for pair in pairs if pair in low) if pairs else found)
    return held


def _pattern(term: str) -> str:
    """A stem begins a word, anything shorter is one."""
    stem = len(term) == _STEM and not term[0].isdigit()
    return re.escape(term) if stem else rf"{re.escape(term)}(?![^\W_])"


def _rarity(held: Sequence[frozenset[str]]) -> dict[str, float]:
    """The share of each term that was found, the more the fewer units have it; the shares add up to 1."""
    common = Counter(term for own in held for term in own)
    weight = {term: math.log1p(len(held) / (1 + count)) for term, count in common.items()}
    total = sum(weight.values())
    return {term: one / total for term, one in weight.items()}


def _share(wanted: Mapping[str, float], own: frozenset[str]) -> float:
    return sum(wanted[term] for term in own) if own else 0.0


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
) -> list[list[int]]:
    """The units to keep, best first, each with the parents it needs; their costs together are at most ``room``.

    The first is kept whatever it costs: a context without anything in it would be no context. What is fixed is not
    among them, and costs nothing here.
    """
    price = np.array([0 if unit.fixed else cost for unit, cost in zip(units, costs, strict=True)])
    worth = (1 - diversity) * scores
    worth[[unit.label or unit.fixed for unit in units]] = -np.inf
    repeats = np.full(len(units), -1.0, dtype=np.float32)
    kept: set[int] = set()
    groups: list[list[int]] = []
    while np.isfinite(worth[best := int((worth - diversity * repeats).argmax())]):
        worth[best] = -np.inf
        needed = [number for number in (*units[best].parents, best) if number not in kept]
        total = int(price[needed].sum())
        if kept and total > room:
            continue
        room -= total
        kept.update(needed)
        groups.append(needed)
        # What cannot fit any more need not be looked at one by one.
        worth[price > room] = -np.inf
        np.maximum(repeats, vectors @ vectors[best], out=repeats)
    return groups
