"""May this text be compared by meaning? An encoder that cannot read a text still returns a vector for it."""

from __future__ import annotations

import re

from dispatch_core.types import Fit, Query

MAX_CHARS = 1000
"""Longer texts are matched exactly: what they share outweighs what they ask."""

MAX_UNKNOWN = 0.3
"""Share of unknown tokens from which a vector says little: MiniLM reads 74 % of Chinese as unknown."""

_TEMPLATE = re.compile(
    r"\b(?:context|question|q|query|answer|input|output|text|passage|document|instructions?|history|user|observation)"
    r"\s?:",
    re.IGNORECASE,
)
"""The marks of a filled-in template, whose fixed part and context would make every filling look alike."""


def why_exact_only(query: Query) -> str | None:
    """A reason that needs no tokenizer to see, or None."""
    text = query.text.strip()
    reasons = {
        "exact-only": not query.semantic,
        "empty-text": not text,
        "too-long": len(text) > MAX_CHARS,
        "several-lines": "\n" in text,
        "broken-unicode": any("\ud800" <= char <= "\udfff" for char in text[:MAX_CHARS]),
        "template": _TEMPLATE.search(text[:MAX_CHARS]) is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def why_unreadable(fit: Fit, max_tokens: int) -> str | None:
    """The encoder would truncate the text silently, or does not know its words; else None.

    Special tokens count as known, so that a text of one unknown word is still seen as unknown enough.
    """
    if fit.tokens > max_tokens:
        return "beyond-window"
    words = max(1, fit.tokens - 2)
    if fit.unknown / words > MAX_UNKNOWN:
        return "unknown-words"
    return None
