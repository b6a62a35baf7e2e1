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
_ASKS = ("?", "？")
_BEST, _FEW = 3, 50
"""Units that lead to others, and the part of all units that may hold a word for it to be a link."""

_STEM = 5
"""Letters of a word that are compared: a crude stem, which is the same rule in every language."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each sign counts beside the cosine of unit and question, and what a repetition costs.

    ``words`` is for words that both have, rare ones first; ``above`` is how much of that its headings bring a unit,
    ``earlier`` how much the words of the question before this one bring, of which "And how much is it?" lives, and
    ``links`` how much the rare words that it shares with the best units bring, for answers that take two sentences.
    ``beside`` is the share of its neighbour's score that a unit of the same paragraph gets, ``reply`` that of a
    question right above it. ``diversity`` is 1 − λ of maximal marginal relevance (Carbonell & Goldstein, 1998): from
    0, relevance alone, to 1.
    """

    words: float = 1.0
    above: float = 0.5
    earlier: float = 0.5
    links: float = 0.3
    beside: float = 0.15
    reply: float = 0.4
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


def relevance(
    question: str, units: Sequence[Unit], asked: Vector, vectors: Matrix, weights: Weights, *, earlier: str = ""
) -> Scores:
    """One number per unit; higher matters more. ``vectors`` has one unit row for each of them."""
    asks, asked_before = terms(question), terms(earlier)
    scores: Scores = vectors @ asked + weights.words * _in_common(asks, units, weights.above)
    if asked_before and weights.earlier:
        scores += weights.words * weights.earlier * _in_common(asked_before - asks, units, weights.above)
    if weights.links:
        scores += weights.words * weights.links * _linked(scores, asks, units)
    beside = weights.beside * _beside(scores, [unit.block for unit in units])
    scores += np.maximum(beside, weights.reply * _replied(scores, units))
    return scores


def _in_common(wanted: frozenset[str], units: Sequence[Unit], above: float) -> Scores:
    """How much of what is looked for each unit holds, 0 to 1; what its headings add counts ``above`` as much."""
    held = _shared(wanted, [unit.text for unit in units])
    rarity = _rarity(held)
    shares = np.array([_share(rarity, own) for own in held])
    # Few headings stand above many units.
    headings = {unit.parents for unit in units}
    brought = {parents: frozenset[str]().union(*(held[at] for at in parents)) for parents in headings}
    added = [brought[unit.parents] - own for unit, own in zip(units, held, strict=True)]
    return shares + above * np.array([_share(rarity, more) for more in added])


def _linked(scores: Scores, asks: frozenset[str], units: Sequence[Unit]) -> Scores:
    """How much each unit holds of the words that the best ones bring and only few others have, 0 to 1."""
    best = [int(at) for at in (-scores).argsort(kind="stable")[:_BEST] if not units[at].label]
    brought = frozenset[str]().union(*(terms(units[at].text) for at in best)) - asks
    held = _shared(brought, [unit.text for unit in units])
    count = Counter(term for own in held for term in own)
    few = frozenset(term for term in brought if 2 <= count[term] <= max(3, len(units) // _FEW))
    held = [own & few for own in held]
    rarity = _rarity(held)
    return np.array([_share(rarity, own) for own in held])


def _replied(scores: Scores, units: Sequence[Unit]) -> Scores:
    """The score of the question right above each unit, 0 without one."""
    found = np.zeros_like(scores)
    for at, unit in enumerate(units[:-1]):
        if unit.text.endswith(_ASKS):
            found[at + 1] = scores[at]
    return found


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
