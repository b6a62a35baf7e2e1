"""English: with and without: "peanut snacks" and "peanut-free snacks", "fat yogurt" and "low-fat yogurt"."""

from __future__ import annotations

from functools import lru_cache

from dispatch_core.guards.phrases import said, stems, tokens
from dispatch_core.guards.reading import english
from dispatch_core.guards.swap import EMPTY
from dispatch_core.guards.words import stem, word_set

_LITTLE = word_set("low zero reduced")
_FREE = "free"
_LESS = "less"
_SHORT = 4  # "unless", "bless" and the like take away nothing


@lru_cache(maxsize=4096)
def _lacking(text: str) -> frozenset[str]:
    """The stems of what a text says there is none of, or little."""
    out = set()
    before = ""
    for token in tokens(text):
        word = "" if token.clause else before
        if token.word == _FREE and word and word not in EMPTY:
            out.add(stem(word))
        elif word in _LITTLE and token.kind == "word" and token.word not in EMPTY:
            out.add(stem(token.word))
        elif token.word.endswith(_LESS) and len(token.word) >= _SHORT + len(_LESS):
            out.add(stem(token.word.removesuffix(_LESS)))
        before = token.word
    return frozenset(out)


def lacking(asked: str, stored: str) -> str | None:
    """``negation``: one text has a thing that the other is free of, or low in."""
    if not english(asked, stored):
        return None
    return "negation" if _missed(asked, stored) or _missed(stored, asked) else None


def _missed(text: str, other: str) -> bool:
    # "Free monthly trials" are "monthly free trials".
    if _FREE in said(text) and _FREE in said(other):
        return False
    return not (_lacking(text) - _lacking(other)).isdisjoint(stems(other))
