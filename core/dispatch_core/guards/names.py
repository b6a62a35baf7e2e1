"""Names and things: a question about another thing, in the same words, has another answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from dispatch_core.guards.english import AUXILIARIES, DENYING
from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import alike, canonical, everyday, kinds, member, naming, sides
from dispatch_core.guards.phrases import tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.words import same_word, word_set

# Words that ask, link or soften, and name nothing the answer would be about.
STOP = AUXILIARIES | word_set("""
    a an the this that these those some any all each every such own same other another i me my mine myself you
    your yours yourself we us our ours he him his she her hers it its they them their one ones who whom whose
    what which when where why how if then else so because as than while though although but and or nor not no to
    from of in on at by for with about into onto over under out off up down through between among during against
    within per via versus vs there here too also just only even still yet already ever never really actually
    exactly basically simply currently please kindly thanks thank hi hello hey dear sir madam guys ok okay well
    been being got get want need like know tell give let help wonder wondering question anyone anybody someone
    somebody something anything everyone thing things stuff way ways best good better possible very much many
    several multiple various numerous more most few bit little quite pretty now again maybe perhaps etc possibly
    properly personally generally usually easily quickly correctly successfully don't would without insteadof
    can make required needed necessary mandatory allowed permitted sure am im don s t re ve ll d m go going
    supposed able idea explain describe show
    """)
_GREETING = word_set("hi hello hey dear thanks mr mrs ms")
# Everyday words that make another product of one when capitalised behind its name: "Galaxy", "Galaxy Plus".
_TIERS = word_set("plus pro max mini lite light air ultra premium basic standard classic sport prime one go")
# Longer texts are too seldom the same sentence with one word exchanged for alignment to pay.
_ALIGNED = 80


class _Reading(NamedTuple):
    names: tuple[str, ...]
    words: tuple[str, ...]  # one for each token
    closed: Mapping[str, Sequence[str]]  # the members of each kind


def _acronym(surface: str) -> bool:
    return len(surface) > 1 and surface.isupper()


def _cased(found: tuple[Token, ...]) -> bool:
    """Do capitals tell anything here, or is the whole text set in them?"""
    letters = [t.surface[:1].isupper() for t in found if t.kind == "word" and t.word not in STOP]
    return 2 * sum(letters) <= len(letters) + 2


class _Word(NamedTuple):
    canonical: str
    kinds: tuple[str, ...]
    member: str
    tells: bool  # may it be a name with a capital letter?
    named: bool  # it tells, and is a name however typed: of a closed class, or letters with figures
    everyday: bool
    quiet: bool  # typed in lower case, it is no name, nor of a closed class


@lru_cache(maxsize=16384)
def _word(word: str) -> _Word:
    mixed = not word.isalpha() and any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
    one = canonical(word)
    tells = (word not in STOP and word not in MEASURES) or word in _TIERS
    named = tells and (naming(word) or mixed)
    closed = kinds(one)
    return _Word(one, tuple(sorted(closed)), member(one), tells, named, everyday(word), not (named or closed))


def _tier(found: tuple[Token, ...], at: int) -> bool:
    before, token = found[at - 1] if at else None, found[at]
    named = before is not None and before.surface[:1].isupper() and before.word not in STOP
    return named and token.word in _TIERS and token.surface[:1].isupper()


def _is_name(found: tuple[Token, ...], at: int, cased: bool) -> bool:
    token, surface = found[at], found[at].surface
    word = _word(token.word)
    # Units and days have guards of their own.
    if token.kind == "word" and word.named:
        return True
    if not cased:
        return False
    if token.word in _TIERS and _tier(found, at):
        return True
    if (
        token.kind != "word"
        or token.word in STOP
        or token.word in MEASURES
        or word.everyday
        or (at and found[at - 1].word in _GREETING)
    ):
        return False
    shaped = _acronym(surface) or (surface[1:] != surface[1:].lower() and not surface.isupper())
    return shaped or (surface[:1].isupper() and not token.sentence)


@lru_cache(maxsize=4096)
def _read(text: str) -> _Reading:
    found = tokens(text)
    known = [_word(token[0]) for token in found]
    cased = None
    names: dict[str, None] = {}
    closed: dict[str, list[str]] = {}
    for at, word in enumerate(known):
        token = found[at]
        lower = not word.tells or token.surface.islower()
        if lower and word.quiet:
            continue
        for kind in word.kinds:
            closed.setdefault(kind, []).append(word.member)
        if lower:
            named = word.named and token.kind == "word"
        else:
            cased = _cased(found) if cased is None else cased
            named = _is_name(found, at, cased)
        if named:
            names[word.canonical] = None
    return _Reading(tuple(names), tuple([word.canonical for word in known]), closed)


@lru_cache(maxsize=4096)
def all_said(text: str) -> frozenset[str]:
    """Every word of the text, a thing with several names under one of them, and two neighbours as one word."""
    words = _read(text).words
    return frozenset([*words, *[a + b for a, b in pairwise(words)]])


@lru_cache(maxsize=4096)
def _initials(text: str) -> str:
    return "".join([t.word[:1] for t in tokens(text) if t.word not in STOP])


@lru_cache(maxsize=4096)
def content(text: str) -> tuple[str, ...]:
    """The words the answer is about, in order, a thing with several names under one of them."""
    pairs = zip(_read(text).words, tokens(text), strict=True)
    return tuple([one for one, (word, _, kind, *_) in pairs if kind == "word" and word not in STOP])


def _missing(name: str, asked: str, stored: str) -> bool:
    there = all_said(stored)
    if name in there or any(same_word(name, w) and not kinds(w) & kinds(name) for w in there):
        return False
    # Typed in lower case, the country is the pronoun.
    if name == "usa" and "us" in there:
        return False
    # "SBI" and "State Bank of India" are one name, both ways.
    if 2 < len(name) < 7 and name in _initials(stored):
        return False
    acronyms = (
        n for n in _read(stored).names if 2 < len(n) < 7 and n in _initials(asked) and n not in all_said(asked)
    )
    return not any(name[0] in acronym for acronym in acronyms)


def entity(asked: str, stored: str) -> str | None:
    """``entity``: a name, or a member of a closed class such as colours, is in one text only."""
    if not english(asked, stored):
        return None
    a, b = _read(asked), _read(stored)
    if any(_missing(n, asked, stored) for n in a.names) or any(_missing(n, stored, asked) for n in b.names):
        return "entity"
    # A name said elsewhere in both texts hides nothing: this one says it more often, that one another.
    if a.names and b.names and _oftener(a.names, asked, stored) and _oftener(b.names, stored, asked):
        return "entity"
    for kind in a.closed.keys() & b.closed.keys():
        here, there = Counter(a.closed[kind]), Counter(b.closed[kind])
        if here - there and there - here:
            return "entity"
    return None


def _oftener(names: tuple[str, ...], here: str, there: str) -> bool:
    more, less = _read(here).words, _read(there).words
    return any(more.count(n) > less.count(n) > 0 for n in names)


def _exchanged(a: str, b: str) -> bool:
    """Are these different things, and not two words for one? Units, days and denials have guards of their own."""
    return (
        DENYING.isdisjoint((a, b))
        and not alike(a, b)
        and MEASURES.isdisjoint((a, b))
        and not (sides(a) and sides(a) == sides(b))
    )


def substitution(asked: str, stored: str) -> str | None:
    """``substitution``: the same sentence about another thing: "cancel my flight", "cancel my hotel".

    The content words are aligned; where one word stands in the place of one other, neither occurs elsewhere in the
    other text, and they are neither spellings nor synonyms, the question is another one.
    """
    if not english(asked, stored):
        return None
    # Alignment is not symmetric in its arguments; the order of the texts makes it so.
    a, b = sorted((asked, stored))
    if content(a) == content(b):
        return None
    kept, exchanged = _align(a, b)
    return "substitution" if exchanged and kept >= exchanged else None


def _spare(here: list[str], there: list[str]) -> bool:
    return len(here) > len(set(here)) or not set(here).issubset(there)


def _more(word: str, here: list[str], there: list[str]) -> bool:
    return here.count(word) > there.count(word)


def _edits(left: list[str], right: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    if set(left).isdisjoint(right):
        return [("replace", 0, len(left), 0, len(right))]
    return SequenceMatcher(None, left, right, autojunk=False).get_opcodes()


def _align(a: str, b: str) -> tuple[int, int]:
    """How many words the two contents share in order, and how many are exchanged for another."""
    left, right = list(content(a)), list(content(b))
    head = next((n for n, (x, y) in enumerate(zip(left, right, strict=False)) if x != y), min(len(left), len(right)))
    left, right = left[head:], right[head:]
    tail = next(
        (n for n, (x, y) in enumerate(zip(left[::-1], right[::-1], strict=False)) if x != y),
        min(len(left), len(right)),
    )
    left, right = left[: len(left) - tail], right[: len(right) - tail]
    if not left or not right or max(len(left), len(right)) > _ALIGNED:
        return 0, 0
    # Nothing is exchanged where one says all that the other says.
    if not _spare(left, right) or not _spare(right, left):
        return 0, 0
    lefts, rights = all_said(a), all_said(b)
    free = [word for word in left if word not in rights]
    # One name for both of a pair of alike words lets the alignment step over synonyms.
    for at, word in enumerate(right):
        if word not in lefts:
            right[at] = next((w for w in free if alike(w, word)), word)
    kept, exchanged = head + tail, 0
    for tag, i, j, k, m in _edits(left, right):
        if tag == "equal":
            kept += j - i
        elif tag == "replace" and j - i == m - k <= 2:
            pairs = zip(left[i:j], right[k:m], strict=True)
            exchanged += sum(_more(x, left, right) and _more(y, right, left) and _exchanged(x, y) for x, y in pairs)
    return kept, exchanged
