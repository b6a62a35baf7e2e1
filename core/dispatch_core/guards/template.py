"""Two fillings of one template: what both texts say in the same sentences must not hide what they ask."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from dispatch_core.guards.reading import folded

_JOINT = re.compile(r"(?<=[.?!:;])\s+|\n+|(?<=[。！？；：])")
_JOINED = re.compile(r"[.?!:;]\s|\n|[。！？；：].")
"""In a stripped text, for what follows white space there is something else."""

# Below this many shared characters it is a greeting or an aside, and what is left may lean on it.
_SHARED = 40


@lru_cache(maxsize=4096)
def _sentences(text: str) -> tuple[tuple[str, str], ...]:
    """The sentences as typed, each with the form in which it may be found again."""
    pieces = (piece.strip() for piece in _JOINT.split(text))
    return tuple((" ".join(folded(p).split()).rstrip(" .?!:;"), p) for p in pieces if p)


@lru_cache(maxsize=4096)
def _several(text: str) -> bool:
    return _JOINED.search(text.strip()) is not None


def rest(asked: str, stored: str) -> tuple[str, str] | None:
    """Both texts without the sentences they share, or None where they share little, or one says nothing else."""
    if min(len(asked), len(stored)) <= _SHARED or not (_several(asked) and _several(stored)):
        return None
    a, b = _sentences(asked), _sentences(stored)
    shared = Counter(key for key, _ in a) & Counter(key for key, _ in b)
    if sum(len(key) * times for key, times in shared.items()) < _SHARED:
        return None
    left, right = _without(a, shared), _without(b, shared)
    return (left, right) if left and right else None


def _without(sentences: tuple[tuple[str, str], ...], shared: Counter[str]) -> str:
    to_drop, kept = Counter(shared), []
    for key, sentence in sentences:
        if to_drop[key] > 0:
            to_drop[key] -= 1
        else:
            kept.append(sentence)
    return " ".join(kept)
