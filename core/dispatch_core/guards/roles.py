"""English: who does it to whom, where no preposition tells, but the order of the words does."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from dispatch_core.guards.english import AUXILIARIES
from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import name
from dispatch_core.guards.names import STOP
from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import Token, english, folded
from dispatch_core.guards.swap import CONNECTORS, EMPTY, symmetric
from dispatch_core.guards.words import word_set

_SUBJECT = {"me": "i", "him": "he", "them": "they", "us": "we", "whom": "who"}
_PERSONS = word_set("i you he she they we")
_PERSON_WORDS = {*_PERSONS, *_SUBJECT, "her"}
_ASKING = word_set("who whom what which")
_DO = word_set("do does did")
# "What means X?" is only a way of saying "what does X mean?".
_ALIKE_BOTH_WAYS = frozenset(map(name, word_set("mean cost happen look sound weigh work take")))
_COORDINATION = word_set("and or vs versus nor")
_WH = word_set("what which when where who whom whose why how if because while that")
_ADVERBS = MEASURES | word_set("""
    please today now currently often usually soon here there home online all both only always twice once again each
    together first still already just also too ever never instead why how
    """)
_OWNED = re.compile(r"([^\W\d_]+)'s ([^\W\d_]+)")
_LONGEST = 60


def _person(found: tuple[Token, ...], at: int) -> str:
    """The pronoun as a subject would be; nothing for other words, and for "her" where it may mean "of her"."""
    word = found[at].word
    if word == "her":
        after = found[at + 1] if at + 1 < len(found) else None
        return "she" if after is None or after.clause or after.word in STOP else ""
    word = _SUBJECT.get(word, word)
    return word if word in _PERSONS else ""


def _doers(found: tuple[Token, ...]) -> tuple[str, ...]:
    """What may act, and the verbs, in order, without what stands behind a preposition."""
    out: list[str] = []
    role, before = False, ""
    for at, token in enumerate(found):
        word = token.word
        person = _person(found, at) if word in _PERSON_WORDS else ""
        if person and before not in CONNECTORS:
            role = False
            out.append(person)
        elif word in CONNECTORS:
            role = word != "to" or before not in {"how", "want", "have", "need", "like", "able"}
        elif token.clause or word in AUXILIARIES or word in _WH:
            role = False
        if not person and not role and word not in EMPTY:
            out.append(name(word))
        before = word
    times = Counter(out)
    return tuple([word for word in out if times[word] == 1])


@lru_cache(maxsize=4096)
def _line(text: str) -> tuple[str, ...]:
    found = tokens(text)
    return _doers(found) if len(found) <= 2 * _LONGEST else ()


@lru_cache(maxsize=4096)
def _question(text: str) -> tuple[str, tuple[str, ...]] | None:
    """How a question for who, what, which N goes on, with "do", another auxiliary or a verb; and its words."""
    if _ASKING.isdisjoint(said(text)):
        return None
    found = tokens(text)[:_LONGEST]
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


@lru_cache(maxsize=4096)
def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """The content words, in phrases that may be moved as a whole: behind a preposition, a comma, a question word."""
    out: list[list[str]] = [[]]
    for token in tokens(text):
        adverb = token.word in _ADVERBS or token.word.endswith("ly")
        if token.clause or token.word in CONNECTORS or token.word in _WH or adverb:
            out.append([])
        if adverb:
            out[-1].append(token.word)
            out.append([])
        elif token.word not in EMPTY:
            out[-1].append(name(token.word))
    return tuple(sorted(tuple(phrase) for phrase in out if phrase))


def _behind(found: tuple[Token, ...]) -> set[int]:
    """Which of the content words stand right behind a preposition."""
    out, number, behind = set(), 0, False
    for token in found:
        content = token.word not in EMPTY
        behind = token.word in CONNECTORS or (behind and not content and not token.clause)
        if content:
            number += 1
        elif behind:
            out.add(number)
    return out


def _fronted(asked: str, stored: str) -> bool:
    """Does a phrase behind a preposition end one text and open the other: "after the update my screen ..."?"""
    a, b = _content(asked), _content(stored)
    return 0 in _behind(tokens(stored)) and any(a[at:] + a[:at] == b for at in _behind(tokens(asked)))


@lru_cache(maxsize=4096)
def _content(text: str) -> tuple[str, ...]:
    return tuple([name(t.word) for t in tokens(text) if t.word not in EMPTY])


@lru_cache(maxsize=4096)
def _bag(text: str) -> tuple[str, ...]:
    return tuple(sorted([name(t.word) for t in tokens(text) if t.word not in {"a", "an", "the"}]))


@lru_cache(maxsize=4096)
def _owned(text: str) -> frozenset[tuple[str, str]]:
    return frozenset(_OWNED.findall(folded(text))) if "'s" in text or "’s" in text else frozenset()


def _exchanged_doers(asked: str, stored: str) -> bool:
    """Do subject, verb and object stand in the opposite order, one of them a pronoun?"""
    a, b = _line(asked), _line(stored)
    places = {word: at for at, word in enumerate(b)}
    both = [word for word in a if word in places]
    if len(both) > _LONGEST or _PERSONS.isdisjoint(both):
        return False
    for at in range(len(both) - 2):
        window = both[at : at + 3]
        # Next to each other in both texts, but for an object: "I fire my boss", "my boss fires me".
        order = [places[word] for word in window]
        if order[0] > order[1] > order[2] and window[1] not in _PERSONS and order[0] - order[2] <= 3:
            return True
    return False


def _object_question(asked: str, stored: str) -> bool:
    """Does one text ask who did it, and the other to whom it was done: "who called Anna", "who did Anna call"?"""
    a, b = _question(asked), _question(stored)
    if a is None or b is None:
        return False
    (a_kind, a_words), (b_kind, b_words) = a, b
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


def _reordered(asked: str, stored: str) -> bool:
    """Are these the very same words in another order, and not just a phrase moved as a whole?"""
    if _bag(asked) != _bag(stored) or len(_bag(asked)) > _LONGEST or symmetric(asked) or symmetric(stored):
        return False
    a, b = _content(asked), _content(stored)
    if a == b or _phrases(asked) == _phrases(stored) or len(a) != len(b):
        return False
    if not (_COORDINATION.isdisjoint(said(asked)) and _COORDINATION.isdisjoint(said(stored))):
        return False
    if _fronted(asked, stored) or _fronted(stored, asked):
        return False
    # "Is Paris the capital?" and "Is the capital Paris?" say the same of the same.
    identity = all(re.search(r"\b(?:is|are|was|were)\b.*\bthe\b", folded(text)) for text in (asked, stored))
    return not identity and not _modifiers(a, b)


def roles(asked: str, stored: str) -> str | None:
    """``swap``: the order of the words gives the same verb to another doer.

    The signs: a pronoun and another word change the sides of a verb; "who called" against "who did she call"; the
    owner becomes the owned ("my father's mother"); the same words stand in another order.
    """
    if not english(asked, stored):
        return None
    a, b = _owned(asked), _owned(stored)
    if a and b and any((owned, owner) in b and (owned, owner) not in a for owner, owned in a):
        return "swap"
    if not (_PERSON_WORDS.isdisjoint(said(asked)) or _PERSON_WORDS.isdisjoint(said(stored))) and (
        _exchanged_doers(asked, stored) or _exchanged_doers(stored, asked)
    ):
        return "swap"
    return "swap" if _object_question(asked, stored) or _reordered(asked, stored) else None
