"""English: words that are another word with a capital letter: Polish and polish, Turkey and turkey."""

from __future__ import annotations

from functools import lru_cache

from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import english
from dispatch_core.guards.words import word_set

_TWO_WORDS = word_set("""
    polish turkey china mercury march august job jordan reading nice bath cork cologne guinea lima slough
    chile hamburg hull sandwich wells
    """)


@lru_cache(maxsize=4096)
def _cased(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """The words set with a capital inside a sentence, and in lower case; neither where capitals tell nothing."""
    if _TWO_WORDS.isdisjoint(said(text)):
        return frozenset(), frozenset()
    found = [t for t in tokens(text) if t.kind == "word" and t.surface]
    capitals = sum(t.surface[0].isupper() for t in found)
    if not capitals or 2 * capitals > len(found) + 2:
        return frozenset(), frozenset()
    inside = [t for t in found if t.word in _TWO_WORDS and not t.sentence]
    upper = frozenset(t.word for t in inside if t.surface.istitle())
    return upper, frozenset(t.word for t in inside if t.surface.islower())


def casing(asked: str, stored: str) -> str | None:
    """``entity``: a word is a name in one text and, in lower case, another word in the other."""
    if not english(asked, stored):
        return None
    (a_upper, a_lower), (b_upper, b_lower) = _cased(asked), _cased(stored)
    return (
        "entity" if (a_upper - a_lower) & (b_lower - b_upper) or (b_upper - b_lower) & (a_lower - a_upper) else None
    )
