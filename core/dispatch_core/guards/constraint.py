"""English: for whom and where it is asked: "for kids" against nothing of the kind, or against "for experts"."""

from __future__ import annotations

from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

from dispatch_core.guards.english import DENYING
from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import alike, name
from dispatch_core.guards.names import all_said, content
from dispatch_core.guards.phrases import tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.swap import CONNECTORS, EMPTY
from dispatch_core.guards.words import word_set

# What stands behind these narrows the question down; "of", "to" and "in" often only say it at greater length.
_NARROWING = word_set("for at during among")
# Behind a preposition these narrow nothing down: "for free", "at all times", "in general".
_VAGUE = MEASURES | word_set("""
    free sure good first least last time times example instance general life world moment present once all
    age person purpose reason use sale real work everyday anyone
    """)


class _Object(NamedTuple):
    head: str  # what stands before the preposition
    connector: str
    word: str  # the first word behind it, as typed


@lru_cache(maxsize=4096)
def _objects(text: str) -> frozenset[_Object]:
    out = []
    head, waiting = "", ""
    found = tokens(text)
    for token, after in zip_longest(found, found[1:]):
        if token.clause:
            head = waiting = ""
        if token.word in CONNECTORS:
            waiting = token.word
        elif token.word not in EMPTY or token.kind == "number":
            # "In class 10" is "in 10th"; numbers have a guard of their own.
            if waiting and _narrows(token) and not (after and after.kind == "number"):
                out.append(_Object(head, waiting, token.word))
            head, waiting = name(token.word), ""
        elif token.word in {"i", "you", "we", "he", "she", "they", "it"}:
            waiting = ""
    return frozenset(out)


def _narrows(token: Token) -> bool:
    # "For losing weight" is "to lose weight".
    told = token.kind == "word" and not token.word.endswith("ing")
    return told and token.word not in _VAGUE and token.word not in DENYING


def _unsaid(word: str, text: str) -> bool:
    # "Break up" is "breakup".
    return not any(alike(word, other) or (len(word) > 3 and other.startswith(word)) for other in all_said(text))


def _narrowed(narrow: str, wide: str) -> bool:
    """Does one text add "for kids" to all that the other says?"""
    added = [o.word for o in _objects(narrow) - _objects(wide) if o.connector in _NARROWING]
    return any(_unsaid(word, wide) for word in added) and not any(_unsaid(word, narrow) for word in content(wide))


def _other(asked: str, stored: str) -> bool:
    """Do the texts go on differently behind the same words: "a pilot in the navy", "a pilot in the air force"?"""
    here, there = _objects(asked) - _objects(stored), _objects(stored) - _objects(asked)
    return any(
        a.head == b.head and a.connector == b.connector and _unsaid(a.word, stored) and _unsaid(b.word, asked)
        for a in here
        for b in there
    )


def constraint(asked: str, stored: str) -> str | None:
    """``substitution``: another thing behind the same preposition, or one that only one of the texts speaks of."""
    if not english(asked, stored) or _objects(asked) == _objects(stored):
        return None
    found = _narrowed(asked, stored) or _narrowed(stored, asked) or _other(asked, stored)
    return "substitution" if found else None
