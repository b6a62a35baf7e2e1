"""English: the same words in another order."""

from __future__ import annotations

from functools import lru_cache

from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import name
from dispatch_core.guards.names import STOP
from dispatch_core.guards.phrases import said, tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.swap import CONNECTORS, EMPTY, SYMMETRIC, symmetric
from dispatch_core.guards.words import stem, word_set

SUBJECT = {"me": "i", "him": "he", "them": "they", "us": "we", "whom": "who"}
PERSONS = word_set("i you he she they we")
PERSON_WORDS = {*PERSONS, *SUBJECT, "her"}
WH = word_set("what which when where who whom whose why how if because while that")
_BEFORE_PHRASES = CONNECTORS | WH | word_set("during under above below between among around near about since until")
_COORDINATION = word_set("and or vs versus nor")
_ARTICLES = word_set("a an the")
_BEING = word_set("be is are was were am")
# Between these and a word like "different", "far", "same", both sides are alike.
_EVEN = _COORDINATION | _BEING | word_set("from to with of between as than")
_ADVERBS = MEASURES | word_set("""
    please today now currently often usually soon here there home online all both only always twice once again each
    together first still already just also too ever never instead why how
    """)
_NO_ADVERBS = word_set("""
    family reply apply supply belly rally ally bully jelly assembly butterfly anomaly monopoly fly july italy lily
    multiply comply rely
    """)
_LONGEST = 60


def person(found: tuple[Token, ...], at: int) -> str:
    """The pronoun as a subject would be; nothing for other words, and for "her" where it may mean "of her"."""
    word = found[at].word
    if word == "her":
        after = found[at + 1] if at + 1 < len(found) else None
        return "she" if after is None or after.clause or after.word in STOP else ""
    word = SUBJECT.get(word, word)
    return word if word in PERSONS else ""


@lru_cache(maxsize=4096)
def _line(text: str) -> tuple[str, ...]:
    """Every word but the articles, without inflection and case: "he loves me" is "he love i"."""
    found = tokens(text)
    out = []
    for at, token in enumerate(found):
        word = token.word
        if word in CONNECTORS:
            out.append(word)
        elif word not in _ARTICLES:
            out.append((word in PERSON_WORDS and person(found, at)) or name(word))
    return tuple(out)


@lru_cache(maxsize=4096)
def _size(text: str) -> int:
    return sum([token.word not in _ARTICLES for token in tokens(text)])


@lru_cache(maxsize=4096)
def _bag(text: str) -> tuple[str, ...]:
    return tuple(sorted(_line(text)))


@lru_cache(maxsize=4096)
def _content(text: str) -> tuple[str, ...]:
    return tuple([name(t.word) for t in tokens(text) if t.word not in EMPTY and t.kind != "number"])


@lru_cache(maxsize=4096)
def _phrases(text: str) -> tuple[tuple[str, ...], ...]:
    """The words in phrases that may be moved as a whole: behind a preposition, a comma, a question word."""
    out: list[list[str]] = [[]]
    for token in tokens(text):
        adverb = token.word in _ADVERBS or (token.word.endswith("ly") and token.word not in _NO_ADVERBS)
        if token.clause or token.word in _BEFORE_PHRASES or adverb:
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
        content = token.word not in EMPTY and token.kind != "number"
        behind = token.word in _BEFORE_PHRASES or (behind and not content and not token.clause)
        if content:
            number += 1
        elif behind:
            out.add(number)
    return out


def _fronted(asked: str, stored: str) -> bool:
    """Does a phrase behind a preposition end one text and open the other: "after the update my screen ..."?"""
    a, b = _content(asked), _content(stored)
    return 0 in _behind(tokens(stored)) and any(a[at:] + a[:at] == b for at in _behind(tokens(asked)))


def _exchanges(a: tuple[str, ...], b: tuple[str, ...]) -> list[tuple[int, int]]:
    """Every way to read the texts as ``P X M Y S`` and ``P Y M X S``: where in the first M begins and ends."""
    start = next(at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    end = len(a) - next(at for at, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=True)) if x != y)
    a, b = a[start:end], b[start:end]
    size = len(a)
    heads = [x for x in range(1, size - 1) if a[:x] == b[size - x :]]
    tails = [y for y in range(1, size - 1) if a[size - y :] == b[:y]]
    return [
        (start + x, start + size - y)
        for x in heads
        for y in tails
        if x + y < size
        and a[x : size - y] == b[y : size - x]
        # Two phrases behind prepositions of their own were only moved: "by bus to Rome", "to Rome by bus".
        and not (a[0] in CONNECTORS and b[0] in CONNECTORS)
    ]


def _even(words: tuple[str, ...], first: int, begin: int, end: int) -> bool:
    """Does it not matter what stands on which side: "A or B", "A differs from B", "how far is A from B"?"""
    between = words[begin:end]
    if _COORDINATION.issuperset(between):
        return True
    if not all(word in _EVEN or stem(word) in SYMMETRIC for word in between):
        return False
    if any(stem(word) in SYMMETRIC for word in between):
        return True
    # "The difference between", "how far is it from", with nothing else before the first of the two.
    before = next((word for word in words[:first][::-1] if word not in _EVEN), "")
    return "than" not in between and stem(before) in SYMMETRIC


def _moved(asked: str, stored: str) -> bool:
    """Was a phrase only moved as a whole, or are two words exchanged that say the same of a third?"""
    a, b = _content(asked), _content(stored)
    if _phrases(asked) == _phrases(stored) or _fronted(asked, stored) or _fronted(stored, asked):
        return True
    differ = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    # "Big red car", "red big car".
    if len(differ) == 2 and differ[1] == differ[0] + 1 and differ[1] + 1 < len(a):
        return True
    # "Is Paris the capital?" and "Is the capital Paris?" say the same of the same.
    return all(tokens(text)[0].word in _BEING and "the" in said(text) for text in (asked, stored))


def order(asked: str, stored: str) -> str | None:
    """``swap``: the very same words, but in another order, and not just a phrase moved as a whole."""
    if not english(asked, stored):
        return None
    if _size(asked) != _size(stored):
        return None
    a, b = _line(asked), _line(stored)
    if a == b or len(a) > _LONGEST or _bag(asked) != _bag(stored):
        return None
    exchanges = _exchanges(a, b)
    if exchanges:
        words = tuple([t.word for t in tokens(asked) if t.word not in _ARTICLES])
        first = next(at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        return None if any(_even(words, first, *exchange) for exchange in exchanges) else "swap"
    same = _content(asked) == _content(stored) or len(_content(asked)) != len(_content(stored))
    if same or _coordinated(asked, stored) or symmetric(asked) or _moved(asked, stored):
        return None
    return "swap"


def _sorted_pairs(text: str) -> list[str]:
    """The content words, those on the two sides of an "and" or "or" in alphabetical order."""
    out: list[str] = []
    joint = False
    for token in tokens(text):
        if token.word in _COORDINATION:
            joint = bool(out)
        elif token.word not in EMPTY and token.kind != "number":
            out.append(name(token.word))
            if joint:
                out[-2:] = sorted(out[-2:])
                joint = False
    return out


def _coordinated(asked: str, stored: str) -> bool:
    """Have only the two sides of an "and" or "or" changed places?"""
    return not _COORDINATION.isdisjoint(said(asked)) and _sorted_pairs(asked) == _sorted_pairs(stored)
