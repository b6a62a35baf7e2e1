"""English: negation, opposites, and the kind of answer a question word asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from dispatch_core.guards.lexicon import sides
from dispatch_core.guards.opposites import PARTICLES, denied, particles, stance, turned, turns
from dispatch_core.guards.phrases import said, stems, tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.words import stem, word_set

AUXILIARIES = word_set("""
    is are was were am be do does did can could will would should shall has have had may might must
    """)
_SUBJECTS = word_set("""
    i you we he she it they there this that these those the a an my your our his her their people one
    """)
_NEGATIONS = word_set("""
    not never no without none nothing nobody nowhere neither except avoid prevent lack lacks lacking lacked
    hardly barely scarcely
    """)
_NEGATIVE = word_set("""
    avoid avoids avoided avoiding prevent prevents prevented preventing
    unable impossible unavailable illegal invalid incorrect inaccessible nonexistent
    """)
# Said of what did not happen: "payment failed" is "payment did not go through".
_FAILED = word_set("fail failed fails failing declined rejected")
# "Stop the dog from barking", "refuse to pay", "keep the milk from boiling over".
_STOPPING = word_set("stop stopping quit quitting")
_REFUSING = word_set("refuse refuses refused refusing forget forgets forgot decline declines")
_KEEPING = word_set("keep keeps keeping kept")
DENYING = _NEGATIONS | _NEGATIVE | _FAILED | _STOPPING | _REFUSING | _KEEPING
# Phrases whose negation word denies nothing about the question.
_IDLE = tuple(
    tuple(idiom.split())
    for idiom in """why not|no problem|no problems|no matter|no doubt|no worries|no idea|not only|not just|or not
    |if not|not sure|not certain|do not know|not know|do not understand|not understand|not figure out|not figure
    |never mind|not to mention|no offense|if nothing else|why not just|not remember how|not work out how|not mind"""
    .replace("\n", " ").split("|")
)  # fmt: skip


def _idle(found: tuple[Token, ...], at: int) -> bool:
    words = [t.word for t in found[max(0, at - 2) : at + 4]]
    here = min(at, 2)
    for idiom in _IDLE:
        for offset in range(len(idiom)):
            begin = here - offset
            if begin >= 0 and tuple(words[begin : begin + len(idiom)]) == idiom and idiom[offset] == words[here]:
                return True
    return False


def _interrogative(found: tuple[Token, ...], at: int) -> bool:
    """Is this the "not" of "Can't I just ...?", "..., isn't it?", which asks the same as without?"""
    opening = at > 0 and found[at - 1].clause and found[at - 1].word in AUXILIARIES
    return opening and at + 1 < len(found) and found[at + 1].word in _SUBJECTS


def _hinders(word: str, after: list[str]) -> bool:
    """Does the verb deny the next: "stop smoking", not "the bus stop"; "forget to pay", not "forget the keys"?"""
    if word in _STOPPING:
        return any(other.endswith("ing") for other in after[:4])
    if word in _REFUSING:
        return after[:1] == ["to"]
    return word in _KEEPING and any(one == "from" and two.endswith("ing") for one, two in pairwise(after))


def _negates(found: tuple[Token, ...], at: int) -> bool:
    word = found[at].word
    if found[at].kind != "word":
        return False
    if word in _NEGATIVE or word in _FAILED:
        return True
    if word not in _NEGATIONS:
        return _hinders(word, [t.word for t in found[at + 1 : at + 7]])
    if word == "no" and at + 1 < len(found) and found[at + 1].kind == "number":
        return False
    coordinated = at > 0 and found[at - 1].word in {"and", "or", "nor"}
    return not coordinated and not _interrogative(found, at) and not _idle(found, at)


@lru_cache(maxsize=4096)
def _negative(text: str) -> bool:
    if DENYING.isdisjoint(said(text)):
        return False
    found = tokens(text)
    return sum([_negates(found, at) for at, token in enumerate(found) if token.word in DENYING]) % 2 == 1


def negation(asked: str, stored: str) -> str | None:
    """``negation``: one text denies what the other asserts."""
    return "negation" if english(asked, stored) and _negative(asked) != _negative(stored) else None


class _Sides(NamedTuple):
    taken: Mapping[tuple[int, bool], int]  # how often the text takes which side of which pair
    others: frozenset[str]  # the stems of what its words would be without a denying prefix, or with the opposite one
    particles: Sequence[tuple[str, str]]


@lru_cache(maxsize=16384)
def _opposites_of(word: str) -> tuple[frozenset[tuple[int, bool]], frozenset[str]]:
    return sides(word), turns(word)


@lru_cache(maxsize=4096)
def _opposites(text: str) -> _Sides:
    found = tokens(text)
    taken: dict[tuple[int, bool], int] = {}
    others: set[str] = set()
    for at, (word, _, kind, *_) in enumerate(found):
        if kind != "word":
            continue
        its, turned_over = _opposites_of(word)
        if word == "for":
            its = sides(stance(found, at))
        for side in its:
            taken[side] = taken.get(side, 0) + 1
        if turned_over:
            others |= turned_over
    if "no" in said(text):
        # "Live with no money" is "live without money".
        for a, b in pairwise(found):
            if a.word == "with" and b.word == "no":
                taken = {
                    key: taken.get(key, 0) - (key in sides("with")) + (key in sides("without"))
                    for key in taken.keys() | sides("with") | sides("without")
                }
    return _Sides(taken, frozenset(others), () if PARTICLES.keys().isdisjoint(said(text)) else particles(found))


@lru_cache(maxsize=4096)
def _counted(text: str) -> Counter[str]:
    return Counter([t.word for t in tokens(text) if t.kind == "word"])


def antonym(asked: str, stored: str) -> str | None:
    """``antonym``: where one text has one of two opposites, the other text has the other.

    They are counted: a word said elsewhere in both texts hides nothing. A text that has both, once each, and one that
    has only one of them are no opposites.
    """
    if not english(asked, stored):
        return None
    a, b = _opposites(asked), _opposites(stored)
    if _opposed(a.taken, b.taken) or _opposed(b.taken, a.taken):
        return "antonym"
    maybe = (a.others and not a.others.isdisjoint(stems(stored))) or (
        b.others and not b.others.isdisjoint(stems(asked))
    )
    if maybe and (denied(_counted(asked), _counted(stored)) or denied(_counted(stored), _counted(asked))):
        return "antonym"
    told = a.particles and b.particles and a.particles != b.particles
    return "antonym" if told and turned(a.particles, b.particles) else None


def _opposed(here: Mapping[tuple[int, bool], int], there: Mapping[tuple[int, bool], int]) -> bool:
    """Is one of two opposites said more often here, and the other one there?"""
    for key, times in here.items():
        if times > there.get(key, 0):
            other = (key[0], not key[1])
            if here.get(other, 0) < there.get(other, 0):
                return True
    return False


_ASKING = {"when": "when", "where": "where", "who": "who", "whom": "who", "whose": "who", "why": "why", "how": "how"}
_QUESTIONING = {*_ASKING, "what", "which", "reason", "for"}
_DEGREES = {"much": "much", "many": "many", "long": "long", "often": "often", "far": "far", "old": "old"}
_MEASURED = word_set("""
    big large tall high heavy deep fast wide small hot cold hard difficult easy bad good safe
    """)
_ASKED_NOUNS = {
    "time": "when", "date": "when", "day": "when", "year": "when", "month": "when", "place": "where",
    "location": "where", "person": "who",
}  # fmt: skip
# A question word behind one of these is the question: "do you know where", "tell me why".
_EMBEDDING = word_set("""
    know tell me explain understand idea wonder wondering see check find learn sure about show figure decide
    ask remember out and so but please hi hello hey is was on
    """)
_WAYS = word_set("to can could should would may might must")
_ANYBODY = word_set("i you we one 1 people someone somebody anyone anybody everyone")
_MADE = word_set("make build do write grow find choose sell teach draw")
_PERIODS = word_set("time minute hour day week month year")


def _degree(words: list[str], at: int) -> frozenset[str]:
    after = words[at + 1] if at + 1 < len(words) else ""
    then = words[at + 2].removesuffix("s") if at + 2 < len(words) else ""
    if after == "soon":
        return frozenset({"when", "long"})
    if after == "come":
        return frozenset({"why"})
    if after in {"much", "many"} and then in _PERIODS:
        return frozenset({"long", _DEGREES[after]})
    if after in _DEGREES or after in _MEASURED:
        return frozenset({_DEGREES.get(after, after)})
    # "How can stains be removed", "how do people save money": a way, whoever goes it.
    way = after in _WAYS or not _ANYBODY.isdisjoint(words[at + 1 : at + 4])
    if after in {"is", "are"} and any(w.endswith("ed") or stem(w) in _MADE for w in words[at + 2 :]):
        # "How is it calculated?" asks how it comes about, or how to do it.
        return frozenset({"how", "how-to"})
    return frozenset({"how-to"} if way else {"how"})


@lru_cache(maxsize=4096)
def _answers(text: str) -> frozenset[str]:
    """The kinds of answer asked for; empty when nothing says."""
    found = tokens(text)
    words = [t.word for t in found]
    kinds: set[str] = set()
    for at, word in enumerate(words):
        if word not in _QUESTIONING:
            continue
        before = words[at - 1] if at else ""
        asks = found[at].clause or before in _EMBEDDING
        if word == "how" and (asks or words[at + 1 : at + 2] in (["much"], ["many"], ["long"])):
            kinds |= _degree(words, at)
        elif word in _ASKING and word != "how" and (asks or word == "why"):
            personal = word == "where" and bool(set(words[at + 1 : at + 4]) & {"i", "you", "we", "one", "to"})
            kinds |= {"where", "how-to"} if personal else {_ASKING[word]}
        elif word in {"what", "which"} and words[at + 1 : at + 2]:
            noun = _ASKED_NOUNS.get(words[at + 1])
            kinds |= {noun} if noun else set()
        elif word == "reason" or (word == "for" and before == "what" and at == len(words) - 1):
            kinds.add("why")
    return frozenset(kinds)


@lru_cache(maxsize=4096)
def _yes_or_no(text: str) -> bool:
    found = tokens(text)
    return len(found) > 2 and found[0].word in AUXILIARIES and said(text).isdisjoint(_ASKING)


def question_word(asked: str, stored: str) -> str | None:
    """``question-word``: when, where, who, why, how much ... ask for different kinds of answer.

    "What", "which" and the asking for a way ("how do I", "where can I", "is it possible to") agree with each other.
    """
    if not english(asked, stored):
        return None
    a, b = _answers(asked), _answers(stored)
    if a and b:
        return "question-word" if a.isdisjoint(b) else None
    plain = asked if not a else stored
    return "question-word" if (a | b) & {"why", "who", "when", "many"} and _yes_or_no(plain) else None
