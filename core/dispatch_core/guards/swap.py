"""The same words in other roles: "from A to B" and "from B to A"."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from dispatch_core.guards.english import AUXILIARIES
from dispatch_core.guards.lexicon import canonical, meanings
from dispatch_core.guards.names import STOP
from dispatch_core.guards.phrases import tokens
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
_LONGEST = 60


class _Roles(NamedTuple):
    role_of: dict[str, str]  # words that occur once, and the connector they stand behind
    place_of: dict[str, int]  # coordinated words share a place
    around: frozenset[tuple[str, str, str]]  # (word before, connector, word after)
    symmetric: bool


def name(word: str) -> str:
    """Synonyms of a verb should not hide an exchange of what stands around it."""
    found = meanings(word)
    return f"={min(found)}" if found else stem(word)


def _content(token: Token) -> bool:
    return token.word not in STOP and token.word not in CONNECTORS


@lru_cache(maxsize=4096)
def _read(text: str) -> _Roles:
    found = tokens(text)
    role, place = "", 0
    seen: dict[str, int] = {}
    role_of: dict[str, str] = {}
    place_of: dict[str, int] = {}
    for at, token in enumerate(found):
        before = found[at - 1].word if at else ""
        if token.word in CONNECTORS:
            role = "" if token.word == "to" and before in _BEFORE_VERB else token.word
        elif token.word in _BREAKS or token.clause:
            role = ""
        if _content(token):
            word = name(canonical(token.word))
            place += not (token.clause or before in _COORDINATION)
            seen[word] = seen.get(word, 0) + 1
            role_of[word], place_of[word] = role, place
    once = {word for word, times in seen.items() if times == 1}
    return _Roles(
        {word: role_of[word] for word in role_of if word in once},
        {word: place_of[word] for word in place_of if word in once},
        frozenset(_around(found)),
        any(stem(t.word) in SYMMETRIC for t in found),
    )


def _around(found: tuple[Token, ...]) -> list[tuple[str, str, str]]:
    out = []
    last: str | None = None
    waiting: tuple[str, str] | None = None
    for token in found:
        if token.word in CONNECTORS:
            waiting = (last, token.word) if last else None
        elif _content(token):
            last = name(canonical(token.word))
            if waiting:
                out.append((*waiting, last))
                waiting = None
    return out


def fall(values: list[int]) -> int:
    """The length of the longest strictly falling subsequence."""
    best = [1] * len(values)
    for i, value in enumerate(values):
        best[i] = 1 + max((best[j] for j in range(i) if values[j] > value), default=0)
    return max(best, default=0)


def _passive(active: _Roles, passive: _Roles) -> bool:
    """Has the object of one text become the doer of the other: "did A buy B", "was A bought by B"?"""
    order, turned = active.place_of, passive.place_of
    for verb, by, doer in passive.around:
        acted = active.role_of.get(doer) == "" and passive.role_of.get(doer) == "by"
        if by == "by" and acted and order.get(verb, order[doer]) < order[doer]:
            subjects = (n for n in order if order[n] < order[verb] and n in turned and verb in turned)
            if any(turned[n] < turned[verb] for n in subjects):
                return True
    return False


def _plain(text: str) -> tuple[str, ...]:
    return tuple(token.word for token in tokens(text))


def _exchanged(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Is one text ``P X M Y S`` and the other ``P Y M X S``, where M does more than to coordinate X and Y?

    With an empty M a phrase was only moved.
    """
    if a == b or len(a) != len(b) or len(a) > _LONGEST or sorted(a) != sorted(b):
        return False
    start = next(at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    end = len(a) - next(at for at, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=True)) if x != y)
    a, b = a[start:end], b[start:end]
    return any(
        a[:x] == b[size - x :] and a[size - y :] == b[:y] and a[x : size - y] == b[y : size - x]
        for size in (len(a),)
        for x in range(1, size - 1)
        for y in range(1, size - x)
        if not set(a[x : size - y]) <= _COORDINATION
    )


def swap(asked: str, stored: str) -> str | None:
    """``swap``: two things have exchanged their roles.

    The signs: two words exchange the prepositions they stand behind; the words on the two sides of one preposition
    change sides; subject, verb and object come in the opposite order; the very same words, but two of them have
    exchanged their places. Moving a phrase to the front shows none of them.
    """
    if not english(asked, stored):
        return None
    a, b = _read(asked), _read(stored)
    if a.symmetric or b.symmetric:
        return None
    both = [word for word in a.role_of if word in b.role_of]
    moved = {(a.role_of[n], b.role_of[n]) for n in both if a.role_of[n] != b.role_of[n]}
    # Only an exchange of prepositions counts; "in Python" for "Python" is a way of speaking.
    if any((there, here) in moved for here, there in moved):
        return "swap"
    turned = {(after, by, before) for before, by, after in a.around - b.around}
    # What a text says in both directions is no exchange.
    if (turned & b.around) - a.around:
        return "swap"
    if _passive(a, b) or _passive(b, a) or _exchanged(_plain(asked), _plain(stored)):
        return "swap"
    # Words that share a place in either text have not changed sides; ties are set so that the texts may be exchanged.
    free = sorted(
        (n for n in both if not a.role_of[n] and not b.role_of[n]), key=lambda n: (a.place_of[n], b.place_of[n])
    )
    return "swap" if len(free) <= 60 and fall([b.place_of[n] for n in free]) >= 3 else None
