"""May this text be compared by meaning? An encoder that cannot read a text still returns a vector for it."""

from __future__ import annotations

from dispatch_core.types import Fit, Query

MAX_CHARS = 4000
"""Longer texts are matched exactly without being tokenised; no encoder in use reads that far."""

MAX_UNKNOWN = 0.3
"""Share of unknown tokens from which a vector says little: MiniLM reads 74 % of Chinese as unknown."""


def why_exact_only(query: Query) -> str | None:
    """A reason that needs no tokenizer to see, or None."""
    if not query.semantic:
        return "exact-only"
    if not query.text.strip():
        return "empty-text"
    if len(query.text) > MAX_CHARS:
        return "too-long"
    try:
        query.text.encode()
    except UnicodeEncodeError:
        return "broken-unicode"
    return None


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
