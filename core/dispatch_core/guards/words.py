"""When are two English words the same word: inflection, derivation, a slip of the finger."""

from __future__ import annotations

import re
from functools import lru_cache


def word_set(text: str) -> frozenset[str]:
    """The words of a text set out in lines."""
    return frozenset(text.split())


_IRREGULAR = {
    form: base
    for line in """
    be am is are was were been being | do does did done doing | have has had having | go goes went gone going
    buy bought | sell sold | send sent | lose lost losing | win won winning | pay paid | get got gotten getting
    give gave given | take took taken | make made | find found | leave left | begin began begun | grow grew grown
    lend lent | spend spent | build built | write wrote written writing | read reading | speak spoke spoken
    learn learnt | teach taught | drive drove driven | eat ate eaten | drink drank drunk | break broke broken
    choose chose chosen | keep kept | meet met | feel felt | think thought | bring brought | catch caught
    forget forgot forgotten | see saw seen | know knew known | tell told | say said | run ran | fly flew flown
    freeze froze frozen | hide hid hidden | show shown | wear wore worn | steal stole stolen | wake woke woken
    rise rose risen | fall fell fallen | sleep slept | die died dying dies | lie lying | use used using uses
    child children | person people persons | man men | woman women | foot feet | tooth teeth | mouse mice
    wife wives | life lives | leaf leaves | knife knives | good better best | bad worse worst | far farther further
    admit admission | permit permission | submit submission | decide decision | divide division | expand expansion |
    conclude conclusion | receive receipt reception | describe description |
    prescribe prescription | produce production | reduce reduction | destroy destruction | apply application |
    grow growth | marry marriage | behave behavior behaviour | succeed success | fail failure |
    compare comparison | pronounce pronunciation | maintain maintenance | remove removal | approve approval |
    arrive arrival | survive survival | deny denial | renew renewal | withdraw withdrawal | choose choice |
    advise advice | believe belief | lose loss | weigh weight | explain explanation | emit emission |
    translate translation | educate education | calculate calculation | invest investment | detect detection |
    index indices indexes | matrix matrices | datum data | criterion criteria | tax taxes | fix fixes fixed fixing
    age ages aging | ship shipped shipping | analysis analyses | medium media | cancel cancellation cancelation
    """.replace("\n", "|").split("|")
    if line.strip()
    for base, *forms in [line.split()]
    for form in [base, *forms]
}
_SUFFIXES = word_set("""
    ation tion ion ment ly al ity ness ance ence able ery y ies i ive est er or ic ical ial e
    """)
_SHORT = re.compile(r"[^aeiouy][aeiou][^aeiouwxy]e?")
_VOWEL = re.compile(r"[aeiouy]")


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _root(word: str) -> str:
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) >= 3 and _VOWEL.search(base) and not word.endswith("eed"):
            return base
    return word


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """One key for the inflections of a case-folded word: ``stem("studies") == stem("studied")``.

    Not a dictionary form. Only equality of stems has a meaning.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.isalpha():
        return word
    root = _singular(word)
    root = _IRREGULAR.get(root) or _root(root)
    if root in _IRREGULAR:
        return _IRREGULAR[root]
    # "Fare" is not "far", nor "note" "not"; "hating" is of "hate", as a short vowel would have doubled its consonant.
    if _SHORT.fullmatch(root) and len(root) == (4 if root[-1] == "e" else 3):
        return root if root[-1] == "e" or not word.endswith(("ing", "ed")) else root + "e"
    if len(root) >= 4 and root[-1] == root[-2]:
        root = root[:-1]
    if len(root) >= 4 and root.endswith("e"):
        root = root[:-1]
    if len(root) >= 4 and root.endswith("y") and root[-2] not in "aeiou":
        root = root[:-1] + "i"
    return root


# They only end like one.
_NO_COMPARATIVES = word_set("shower letter poster counter folder matter meter corner founder request interest forest")


def positive(word: str) -> str:
    """The stem of an adjective whose comparative this may be: ``positive("cheapest") == stem("cheap")``."""
    for ending in ("est", "er") if word not in _NO_COMPARATIVES else ():
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word.removesuffix(ending)
            if len(base) == 3 and _SHORT.fullmatch(base):
                return stem(base + "e")
            return stem(base[:-1] if base[-1] == base[-2] else base)
    return stem(word)


def _apart(a: str, b: str) -> tuple[str, str]:
    """What is left of both after the common beginning and the common ending."""
    head = 0
    while head < min(len(a), len(b)) and a[head] == b[head]:
        head += 1
    a, b = a[head:], b[head:]
    tail = 0
    while tail < min(len(a), len(b)) and a[-1 - tail] == b[-1 - tail]:
        tail += 1
    return a[: len(a) - tail], b[: len(b) - tail]


def _typo(a: str, b: str) -> bool:
    shorter = min(len(a), len(b))
    # Short words one letter apart (Iran, Iraq) are more often two words than one and its typo.
    if shorter < 5 or a[0] != b[0] or not (a + b).isalpha():
        return False
    left, right = _apart(a, b)
    if len(left) + len(right) == 1 or (len(left) == 2 and left == right[::-1]):
        return True
    if len(left) == len(right) == 1:
        return shorter >= 6
    return shorter >= 9 and len(left) <= 2 and len(right) <= 2 and len(left) + len(right) <= 3


def _derived(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    for kept in (short, short[:-1]):
        if len(kept) >= 4 and long.startswith(kept):
            return long[len(kept) :] in _SUFFIXES
    return False


def same_word(a: str, b: str) -> bool:
    """Are these case-folded words forms or spellings of one word? Symmetric."""
    if a == b or stem(a) == stem(b):
        return True
    # Apart from irregular forms, which have one stem, a word keeps its first letter.
    return a[:1] == b[:1] and _spelled_alike(*sorted((a, b)))


@lru_cache(maxsize=16384)
def _spelled_alike(first: str, second: str) -> bool:
    if _typo(first, second) or _derived(stem(first), stem(second)):
        return True
    # British and American spelling: colour, organise, centre.
    return _american(first) == _american(second)


def _american(word: str) -> str:
    word = word.replace("our", "or").replace("isation", "ization")
    return re.sub(r"is(e|es|ed|ing)$", r"iz\1", re.sub(r"tre(s?)$", r"ter\1", word))
