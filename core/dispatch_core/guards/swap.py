"""The same things behind other prepositions: "from A to B" and "from B to A"."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from dispatch_core.guards.english import AUXILIARIES
from dispatch_core.guards.lexicon import name
from dispatch_core.guards.names import STOP
from dispatch_core.guards.phrases import stems, tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.words import stem, word_set

CONNECTORS = word_set("""
    from to into onto than of in for with by on at as over before after insteadof without within through via
    against
    """)
# Here who is first does not matter: the difference between A and B, the distance from A to B.
SYMMETRIC = frozenset(
    stem(word)
    for word in word_set("""
    difference different differ compare comparison compared similar similarity same versus vs distance far
    equal related relation relationship between combine mix marry meet match both connection common
    distinguish
    """)
)
# But these have a direction even there: "mix A into B".
_DIRECTED = word_set("into onto before after insteadof through via over against")
# Words that neither stand for a thing nor for what is done.
EMPTY = STOP | CONNECTORS
_BREAKS = AUXILIARIES | word_set("""
    i you we he she it they who what which when where why how that if because while
    """)
# "To" behind these opens a verb: "how to", "want to"; elsewhere it points at something.
_BEFORE_VERB = word_set("""
    how want need have has able way ways like try trying possible where when what which going got used
    supposed best easy hard safe legal good better time me you us it required allowed ok necessary step steps
    method easier easiest is are was be
    """)
_COORDINATION = word_set("and or vs versus")
# Verbs that say little elsewhere, but here who is given what.
_TAKING = word_set("get give take make")
_LONGEST = 60


class _Roles(NamedTuple):
    role_of: Mapping[str, str]  # words that occur once, and the connector they stand behind
    place_of: Mapping[str, int]  # coordinated words share a place
    clause_of: Mapping[str, int]
    around: frozenset[tuple[str, str, str]]  # (word before, connector, word after)
    governed: frozenset[tuple[str, str]]  # (word, the next one), with at most an article or the like between them


@lru_cache(maxsize=4096)
def symmetric(text: str) -> bool:
    """Does the text say of two things what holds both ways?"""
    return not SYMMETRIC.isdisjoint(stems(text))


@lru_cache(maxsize=4096)
def _read(text: str) -> _Roles:
    role, place, clause, before = "", 0, 0, ""
    role_of: dict[str, str] = {}
    place_of: dict[str, int] = {}
    clause_of: dict[str, int] = {}
    again = set()
    for token in tokens(text):
        spoken = token.word
        clause += token.clause
        if spoken in CONNECTORS:
            role = "" if spoken == "to" and before in _BEFORE_VERB else spoken
        elif token.clause or spoken in _BREAKS:
            role = ""
        if spoken not in EMPTY:
            word = name(spoken)
            place += not (token.clause or before in _COORDINATION)
            if word in role_of:
                again.add(word)
            role_of[word], place_of[word], clause_of[word] = role, place, clause
        before = spoken
    for word in again:
        del role_of[word], place_of[word]
    return _Roles(role_of, place_of, clause_of, frozenset(_around(tokens(text))), frozenset(_governed(tokens(text))))


def roles_of(text: str) -> Mapping[str, str]:
    """The words said once, under their names, and the connector each stands behind."""
    return _read(text).role_of


def _around(found: tuple[Token, ...]) -> list[tuple[str, str, str]]:
    out = []
    last: str | None = None
    waiting: tuple[str, str] | None = None
    for token in found:
        if token.clause:
            last = waiting = None
        if token.word in CONNECTORS:
            waiting = (last, token.word) if last else None
        elif token.word not in STOP:
            last = name(token.word)
            if waiting:
                out.append((*waiting, last))
                waiting = None
    return out


def _governed(found: tuple[Token, ...]) -> list[tuple[str, str]]:
    out = []
    last: str | None = None
    for token in found:
        if token.clause or token.word in CONNECTORS or token.word in _COORDINATION or token.word in AUXILIARIES:
            last = None
        if token.word not in EMPTY or token.word in _TAKING:
            here = name(token.word)
            if last is not None:
                out.append((last, here))
            last = here
    return out


def fall(values: list[int]) -> int:
    """The length of the longest strictly falling subsequence."""
    best = [1] * len(values)
    for i, value in enumerate(values):
        for j in range(i):
            if values[j] > value and best[j] >= best[i]:
                best[i] = best[j] + 1
    return max(best, default=0)


def _turned(a: _Roles, b: _Roles, connectors: frozenset[str]) -> bool:
    """Have the words on the two sides of a preposition changed sides?"""
    if a.around == b.around:
        return False
    here, there = a.around - b.around, b.around - a.around
    # What a text says in both directions is no exchange.
    return any(by in connectors and (after, by, before) in there for before, by, after in here)


def _rejoined(a: _Roles, b: _Roles) -> bool:
    """Do two words exchange what is said of them: "the speed of light and the mass of the sun"?"""
    here, there = a.around - b.around, b.around - a.around
    if len(here) < 2 or len(there) < 2:
        return False
    return any(
        (one, by, other) in there and (two, via, thing) in there
        for one, by, thing in here
        for two, via, other in here
        if one != two and thing != other
    )


def _regoverned(a: _Roles, b: _Roles) -> bool:
    """Has a word another object, and the object another word: "pay cash and get a card", "give a card, get cash"?"""
    here, there = a.governed - b.governed, b.governed - a.governed
    if len(here) < 2 or len(there) < 2:
        return False
    mine, yours = {thing for _, thing in here}, {thing for _, thing in there}
    return any(
        verb == other and thing != instead and thing in yours and instead in mine
        for verb, thing in here
        for other, instead in there
    )


def _passive(active: _Roles, passive: _Roles) -> bool:
    """Has the object of one text become the doer of the other: "did A buy B", "was A bought by B"?"""
    order, turned = active.place_of, passive.place_of
    for verb, by, doer in passive.around:
        acted = by == "by" and active.role_of.get(doer) == "" and passive.role_of.get(doer) == "by"
        if acted and order.get(verb, order[doer]) < order[doer]:
            subjects = (n for n in order if order[n] < order[verb] and n in turned and verb in turned)
            if any(turned[n] < turned[verb] for n in subjects):
                return True
    return False


def swap(asked: str, stored: str) -> str | None:
    """``swap``: two things have exchanged their roles.

    The signs: two words exchange the prepositions they stand behind; the words on the two sides of one preposition
    change sides; two words exchange what is said of them; subject, verb and object come in the opposite order.
    Moving a phrase to the front shows none of them.
    """
    if not english(asked, stored):
        return None
    a, b = _read(asked), _read(stored)
    if symmetric(asked) or symmetric(stored):
        return "swap" if _turned(a, b, _DIRECTED) else None
    both = a.role_of.keys() & b.role_of.keys()
    moved = {(a.role_of[n], b.role_of[n]) for n in both if a.role_of[n] != b.role_of[n]}
    # Only an exchange of prepositions counts; "in Python" for "Python" is a way of speaking.
    if len(moved) > 1 and any((there, here) in moved for here, there in moved):
        return "swap"
    if _turned(a, b, CONNECTORS) or _rejoined(a, b) or _regoverned(a, b):
        return "swap"
    if _passive(a, b) or _passive(b, a):
        return "swap"
    # Words that share a place in either text have not changed sides; ties are set so that the texts may be exchanged.
    free = [n for n in both if not a.role_of[n] and not b.role_of[n]]
    return "swap" if 3 <= len(free) <= _LONGEST and _backwards(free, a, b) else None


def _backwards(words: list[str], a: _Roles, b: _Roles) -> bool:
    """Do three of the words, together in one clause, come in the opposite order?"""
    together: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for word in words:
        clauses = a.clause_of[word], b.clause_of[word]
        together.setdefault(clauses, []).append((a.place_of[word], b.place_of[word]))
    return any(len(places) > 2 and fall([at for _, at in sorted(places)]) > 2 for places in together.values())
