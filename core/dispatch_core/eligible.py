"""May this text be compared by meaning, may it be answered from a cache at all?

An encoder that cannot read a text still returns a vector for it; and an answer that was right for somebody a minute
ago need not be right for another now.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dispatch_core.circumstances import circumstances
from dispatch_core.errors import ConfigError
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
    if not query.semantic:
        return "exact-only"
    if not text or len(text) > MAX_CHARS:
        return "too-long" if text else "empty-text"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "broken-unicode"
    if "\n" in text:
        return "several-lines"
    return "template" if ":" in text and _TEMPLATE.search(text) else None


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


Handling: TypeAlias = Literal["exact", "bypass"]
"""What happens to a question: it finds only answers to its own words, or it goes past the cache, both ways."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Questions in which the regular expression ``pattern`` is found, whatever their case; ``reason`` names the rule.

    Raises `ConfigError` for a pattern that is none.
    """

    reason: str
    pattern: str
    handling: Handling = "bypass"

    def __post_init__(self) -> None:
        _check_handling(self.reason, self.handling)
        _check_pattern(self.pattern)

    def holds(self, text: str) -> bool:
        return re.search(self.pattern, text, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Which questions are matched exactly, and which go past the cache.

    ``volatile`` questions are those whose right answer changes with the moment, ``personal`` ones those whose answer
    depends on who asks (`dispatch_core.circumstances` tells them). Each goes past the cache, unless it is set to
    ``"exact"``: enough if entries live for a moment only, or if every person has a namespace of his own; or to None:
    the rule is off. ``rules`` are further ones. A text in which a pattern of ``exempt`` is found is caught by none.

    >>> Eligibility().why_not_at_all(Query("What time is it?"))
    'volatile'
    >>> Eligibility(personal="exact").why_exact_only(Query("Where is my order?"))
    'personal'
    """

    volatile: Handling | None = "bypass"
    personal: Handling | None = "bypass"
    rules: tuple[Rule, ...] = ()
    exempt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, handling in (("volatile", self.volatile), ("personal", self.personal)):
            if handling is not None:
                _check_handling(name, handling)
        for pattern in self.exempt:
            _check_pattern(pattern)

    def __hash__(self) -> int:
        # Asked for at every lookup; few differ in more than this.
        return hash((self.volatile, self.personal))

    def why_not_at_all(self, query: Query) -> str | None:
        """The reason why the question is neither looked up nor stored, or None."""
        return self._reason(query.text, "bypass")

    def why_exact_only(self, query: Query) -> str | None:
        """The reason why the question is compared with its own words only, or None. Needs no tokenizer."""
        return why_exact_only(query) or self._reason(query.text, "exact")

    def _reason(self, text: str, handling: Handling) -> str | None:
        for pattern in self.exempt:
            if re.search(pattern, text, re.IGNORECASE):
                return None
        found = circumstances(text)
        if found:
            if self.volatile == handling and "volatile" in found:
                return "volatile"
            if self.personal == handling and "personal" in found:
                return "personal"
        for rule in self.rules:
            if rule.handling == handling and rule.holds(text):
                return rule.reason
        return None


def _check_handling(name: str, handling: str) -> None:
    if handling not in ("exact", "bypass"):
        raise ConfigError(f"what happens to {name} questions is 'exact' or 'bypass', got {handling!r}")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}") from error
