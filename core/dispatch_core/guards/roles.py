"""English: who does it to whom, where no preposition tells, but the order of the words does."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from dispatch_core.guards.english import AUXILIARIES
from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import canonical
from dispatch_core.guards.names import STOP
from dispatch_core.guards.phrases import tokens
from dispatch_core.guards.reading import Token, english, folded
from dispatch_core.guards.swap import CONNECTORS, SYMMETRIC, fall, name
from dispatch_core.guards.words import stem, word_set

_SUBJECT = {"me": "i", "him": "he", "them": "they", "us": "we", "whom": "who"}
_PERSONS = word_set("i you he she they we")
_ASKING = word_set("who whom what which")
_DO = word_set("do does did")
# "What means X?" is only a way of saying "what does X mean?".
_ALIKE_BOTH_WAYS = frozenset(map(name, word_set("mean cost happen look sound weigh work take")))
_COORDINATION = word_set("and or vs versus nor")
_WH = word_set("what which when where who whom whose why how if because while that")
_ADVERBS = word_set("""
    please today now currently often usually soon here there home online all both only always twice once again each
    together first still already just also too ever never instead why how
    """)
_OWNED = re.compile(r"([^\W\d_]+)'s ([^\W\d_]+)")
_LONGEST = 60


class _Order(NamedTuple):
    doers: tuple[str, ...]  # what may act, and the verbs, in order; what stands behind a preposition left out
    question: tuple[str, tuple[str, ...]] | None  # how the question begins ("do", "plain" ...), and its words
    owned: frozenset[tuple[str, str]]
    words: tuple[str, ...]
    content: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    behind: frozenset[int]  # which of the content stand right behind a preposition
    symmetric: bool


def _person(found: tuple[Token, ...], at: int) -> str:
    """The pronoun as a subject would be; nothing for other words, and for "her" where it may mean "of her"."""
    word = found[at].word
    if word == "her":
        after = found[at + 1] if at + 1 < len(found) else None
        return "she" if after is None or after.clause or after.word in STOP else ""
    word = _SUBJECT.get(word, word)
    return word if word in _PERSONS else ""


def _content(token: Token) -> bool:
    return token.word not in STOP and token.word not in CONNECTORS


def _doers(found: tuple[Token, ...]) -> tuple[str, ...]:
    out: list[str] = []
    role = False
    for at, token in enumerate(found):
        person = _person(found, at)
        before = found[at - 1].word if at else ""
        if person and before not in CONNECTORS:
            role = False
            out.append(person)
        elif token.word in CONNECTORS:
            role = token.word != "to" or before not in {"how", "want", "have", "need", "like", "able"}
        elif token.clause or token.word in AUXILIARIES or token.word in _WH:
            role = False
        if not person and not role and _content(token):
            out.append(name(canonical(token.word)))
    times = Counter(out)
    return tuple(word for word in out if times[word] == 1)


def _question(found: tuple[Token, ...]) -> tuple[str, tuple[str, ...]] | None:
    """How a question for who, what, which N goes on: with "do", another auxiliary, or the verb itself."""
    at = next((n for n, t in enumerate(found) if t.word in _ASKING and (t.clause or not n)), None)
    if at is None:
        return None
    # "Which company did ...": the noun is not yet the verb.
    start = at + 1
    if found[at].word in {"which", "what"}:
        auxiliary = next((n for n in range(start, min(start + 4, len(found))) if found[n].word in AUXILIARIES), None)
        start = auxiliary if auxiliary is not None else start
    if start >= len(found):
        return None
    word = found[start].word
    kind = "do" if word in _DO else word if word in AUXILIARIES else "plain"
    return kind, _doers(found[start:] if kind == "plain" else found[start + 1 :])


def _phrases(found: tuple[Token, ...]) -> tuple[tuple[str, ...], ...]:
    """The content words, in phrases that may be moved as a whole: behind a preposition, a comma, a question word."""
    out: list[list[str]] = [[]]
    for token in found:
        adverb = token.word in _ADVERBS or token.word in MEASURES or token.word.endswith("ly")
        if token.clause or token.word in CONNECTORS or token.word in _WH or adverb:
            out.append([])
        if adverb:
            out[-1].append(token.word)
            out.append([])
        elif _content(token):
            out[-1].append(name(canonical(token.word)))
    return tuple(sorted(tuple(phrase) for phrase in out if phrase))


def _behind(found: tuple[Token, ...]) -> frozenset[int]:
    out, number, behind = set(), 0, False
    for token in found:
        behind = token.word in CONNECTORS or (behind and not _content(token) and not token.clause)
        if _content(token):
            number += 1
        elif behind:
            out.add(number)
    return frozenset(out)


def _fronted(a: _Order, b: _Order) -> bool:
    """Does a phrase behind a preposition end one text and open the other: "after the update my screen ..."?"""
    return 0 in b.behind and any(a.content[at:] + a.content[:at] == b.content for at in a.behind)


@lru_cache(maxsize=4096)
def _read(text: str) -> _Order:
    found = tokens(text)
    plain = tuple(t.word for t in found if t.word not in {"a", "an", "the"})
    return _Order(
        _doers(found) if len(found) <= 2 * _LONGEST else (),
        _question(found[:_LONGEST]),
        frozenset(_OWNED.findall(folded(text))),
        tuple(sorted(name(canonical(word)) for word in plain)),
        tuple(name(canonical(t.word)) for t in found if _content(t)),
        _phrases(found),
        _behind(found),
        any(stem(t.word) in SYMMETRIC for t in found),
    )


def _exchanged_doers(a: _Order, b: _Order) -> bool:
    """Do subject, verb and object stand in the opposite order, one of them a pronoun?"""
    places = {word: at for at, word in enumerate(b.doers)}
    both = [word for word in a.doers if word in places]
    if len(both) > _LONGEST or _PERSONS.isdisjoint(both):
        return False
    for at in range(len(both) - 2):
        window = both[at : at + 3]
        # Next to each other in both texts, but for an object: "I fire my boss", "my boss fires me".
        order = [places[word] for word in window]
        if fall(order) == 3 and window[1] not in _PERSONS and max(order) - min(order) <= 3:
            return True
    return False


def _object_question(a: _Order, b: _Order) -> bool:
    """Does one text ask who did it, and the other to whom it was done: "who called Anna", "who did Anna call"?"""
    if a.question is None or b.question is None:
        return False
    (a_kind, a_words), (b_kind, b_words) = a.question, b.question
    support = {a_kind, b_kind} == {"do", "plain"}
    same = a_kind == b_kind and a_kind not in {"do", "plain", "is", "are", "was", "were", "am", "be"}
    if not support and not same:
        return False
    first = [w for w in a_words if w in b_words][:2]
    second = [w for w in b_words if w in a_words][:2]
    return len(first) == 2 and first == second[::-1] and _ALIKE_BOTH_WAYS.isdisjoint(first)


def _modifiers(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Are only two words exchanged that stand before the same third: "big red car", "red big car"?"""
    differ = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    return len(differ) == 2 and differ[1] == differ[0] + 1 and differ[1] + 1 < len(a)


def _coordinated(asked: str, stored: str) -> bool:
    return any(t.word in _COORDINATION for text in (asked, stored) for t in tokens(text))


def _reordered(a: _Order, b: _Order, asked: str, stored: str) -> bool:
    """Are these the very same words in another order, and not just a phrase moved as a whole?"""
    if a.words != b.words or a.content == b.content or len(a.words) > _LONGEST or a.symmetric or b.symmetric:
        return False
    if a.phrases == b.phrases or _coordinated(asked, stored) or len(a.content) != len(b.content):
        return False
    if _fronted(a, b) or _fronted(b, a):
        return False
    # "Is Paris the capital?" and "Is the capital Paris?" say the same of the same.
    identity = all(re.search(r"\b(?:is|are|was|were)\b.*\bthe\b", folded(text)) for text in (asked, stored))
    return not identity and not _modifiers(a.content, b.content)


def roles(asked: str, stored: str) -> str | None:
    """``swap``: the order of the words gives the same verb to another doer.

    The signs: a pronoun and another word change the sides of a verb; "who called" against "who did she call"; the
    owner becomes the owned ("my father's mother"); the same words stand in another order.
    """
    if not english(asked, stored):
        return None
    a, b = _read(asked), _read(stored)
    if any((owned, owner) in b.owned and (owned, owner) not in a.owned for owner, owned in a.owned):
        return "swap"
    if _exchanged_doers(a, b) or _exchanged_doers(b, a) or _object_question(a, b):
        return "swap"
    return "swap" if _reordered(a, b, asked, stored) else None
