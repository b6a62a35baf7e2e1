"""English: who does it to whom, where no preposition tells, but the order of the words does."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from dispatch_core.guards.english import AUXILIARIES
from dispatch_core.guards.lexicon import name
from dispatch_core.guards.order import PERSON_WORDS, PERSONS, WH, person
from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import Token, english, folded
from dispatch_core.guards.swap import CONNECTORS, EMPTY, roles_of
from dispatch_core.guards.words import stem, word_set

_ASKING = word_set("who whom what which")
_URGING = frozenset(
    map(stem, word_set("get want ask tell convince persuade force allow help need expect make teach"))
)
_DO = word_set("do does did")
_SUPPORT = _DO | word_set("can could will would should must may might")
_DETERMINERS = word_set("a an the my your his her our their")
# "What means X?" is only a way of saying "what does X mean?".
_ALIKE_BOTH_WAYS = frozenset(map(name, word_set("mean cost happen look sound weigh work take")))
_WHERE = word_set("from in for at")
_NO_VERBS = {*CONNECTORS, *AUXILIARIES, *PERSON_WORDS, *_DETERMINERS, *WH, "not", "and", "or"}
_OWNED = re.compile(r"([^\W\d_]+)'s ([^\W\d_]+)")
_STOP = ","
_LONGEST = 60


def _doers(found: tuple[Token, ...]) -> tuple[str, ...]:
    """What may act, and the verbs, in order, without what stands behind a preposition."""
    out: list[str] = []
    role, before, urged = False, "", False
    for at, token in enumerate(found):
        word = token.word
        if token.clause and out:
            out.append(_STOP)
        urged = (urged or stem(word) in _URGING) and not token.clause
        who = person(found, at) if word in PERSON_WORDS else ""
        if who and before not in CONNECTORS:
            role = False
            out.append(who)
        elif word in CONNECTORS:
            # "How to call", "get my friend to call": a verb, not a place.
            role = word != "to" or not (urged or before in {"how", "want", "have", "need", "like", "able"})
        elif token.clause or word in AUXILIARIES or word in WH:
            role = False
        if not who and not role and word not in EMPTY:
            out.append(name(word))
        before = word
    return tuple(out)


@lru_cache(maxsize=4096)
def _line(text: str) -> tuple[str, ...]:
    found = tokens(text)
    return _doers(found) if len(found) <= 2 * _LONGEST else ()


def _once(words: tuple[str, ...]) -> list[str]:
    times = Counter(words)
    return [word for word in words if times[word] == 1 and word != _STOP]


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
    if kind == "plain":
        # "Who works for Anna" asks for another than "who does Anna work for".
        return kind, tuple([name(t.word) for t in found[start:] if t.word not in EMPTY])
    return kind, _doers(found[start + 1 :])


@lru_cache(maxsize=4096)
def _owned(text: str) -> frozenset[tuple[str, str]]:
    return frozenset(_OWNED.findall(folded(text))) if "'s" in text or "’s" in text else frozenset()


@lru_cache(maxsize=4096)
def _threes(text: str) -> frozenset[tuple[str, str, str]]:
    """A verb between two that may act, one of them a pronoun."""
    line = _line(text)
    threes = zip(line, line[1:], line[2:], strict=False)
    return frozenset(
        three for three in threes if three[1] not in PERSONS and not PERSONS.isdisjoint(three) and _STOP not in three
    )


def _exchanged_doers(asked: str, stored: str) -> bool:
    """Do subject, verb and object stand in the opposite order, one of them a pronoun?"""
    threes, others = _threes(asked), _threes(stored)
    if any((y, verb, x) in others and (y, verb, x) not in threes for x, verb, y in threes - others):
        return True
    here, there = _line(asked), _line(stored)
    places = {word: there.index(word) for word in _once(there)}
    both = [word for word in _once(here) if word in places]
    if len(both) > _LONGEST or PERSONS.isdisjoint(both):
        return False
    for at in range(len(both) - 2):
        first, verb, last = both[at : at + 3]
        begin, end = places[last], places[first]
        # Next to each other in both texts, but for an object: "I fire my boss", "my boss fires me".
        if verb in PERSONS or not end > places[verb] > begin >= end - 3:
            continue
        if _STOP not in there[begin:end] and _STOP not in here[here.index(first) : here.index(last)]:
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
    # The one with "do" names the doer first and what is done next.
    doing, other = (_once(a_words), _once(b_words)) if a_kind != "plain" else (_once(b_words), _once(a_words))
    doer, done = ([w for w in doing if w in other] + ["", ""])[:2]
    first = [w for w in other if w in doing]
    turned = bool(done) and first.index(done) < first.index(doer) and (support or first[:2] == [done, doer])
    return turned and _ALIKE_BOTH_WAYS.isdisjoint((doer, done))


@lru_cache(maxsize=4096)
def _subject(text: str) -> tuple[str, str] | None:
    """Who does what in a question: "does my wife own half of it" is of (wife, own)."""
    found = tokens(text)
    start = next((at for at, t in enumerate(found) if t.word in _SUPPORT), len(found))
    start += 1 + (start + 1 < len(found) and found[start + 1].word in _DETERMINERS)
    if start + 1 >= len(found) or found[start + 1].word in _NO_VERBS or "as" in said(text):
        return None
    who = person(found, start) or (name(found[start].word) if found[start].word not in EMPTY else "")
    return (who, name(found[start + 1].word)) if who else None


def _other_subject(asked: str, stored: str) -> bool:
    """Does another one do the same, of two that are in the texts: "do I own half of my wife's house?"?"""
    a, b = _subject(asked), _subject(stored)
    if a is None or b is None or a[1] != b[1] or a[0] == b[0]:
        return False
    pairs = ((a[0], roles_of(stored)), (b[0], roles_of(asked)))
    # "In India" and "from India" are where it is done, and may well be said of who does it.
    return any(who not in PERSONS and there.get(who, "from") not in _WHERE for who, there in pairs)


def roles(asked: str, stored: str) -> str | None:
    """``swap``: the order of the words gives the same verb to another doer.

    The signs: a pronoun and another word change the sides of a verb; "who called" against "who did she call"; the
    owner becomes the owned ("my father's mother"); the subject of the question becomes something else in it.
    """
    if not english(asked, stored):
        return None
    a, b = _owned(asked), _owned(stored)
    if a and b and any((owned, owner) in b and (owned, owner) not in a for owner, owned in a):
        return "swap"
    if not (PERSON_WORDS.isdisjoint(said(asked)) or PERSON_WORDS.isdisjoint(said(stored))) and (
        _exchanged_doers(asked, stored) or _exchanged_doers(stored, asked)
    ):
        return "swap"
    return "swap" if _object_question(asked, stored) or _other_subject(asked, stored) else None
