"""English: of how many it is said, all, some or most; and alternatives, "this or that" against this alone."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from dispatch_core.guards.figures import MEASURES
from dispatch_core.guards.lexicon import alike
from dispatch_core.guards.phrases import said, stems, tokens
from dispatch_core.guards.reading import Token, english
from dispatch_core.guards.words import stem, word_set

_QUANTIFIERS = {
    "all": "all", "every": "all", "each": "all", "everybody": "all", "everyone": "all", "always": "always",
    "some": "some", "several": "some", "sometimes": "sometimes", "occasionally": "sometimes", "rarely": "rarely",
    "seldom": "rarely", "ever": "ever", "both": "both", "either": "either", "neither": "neither", "only": "only",
    "exclusively": "only", "solely": "only", "usually": "usually", "mostly": "usually", "partly": "partly",
    "partially": "partly", "fully": "fully", "entirely": "fully", "completely": "fully",
}  # fmt: skip
_SAYING = {*_QUANTIFIERS, "most"}
# Said on one side only these change the question; "any", "all", "some", "ever" often do not.
_TELLING = frozenset({"only", "always", "rarely", "sometimes"})
_APART = (
    ("all", "some"), ("all", "most"), ("some", "most"), ("always", "ever"), ("ever", "only"), ("both", "either"),
    ("both", "neither"), ("either", "neither"), ("always", "usually"), ("fully", "partly"), ("all", "neither"),
)  # fmt: skip
_BEFORE_MOST = word_set("are is do does did can will would should have were was of for on in with by at to if that")
_OPPOSITE_ALTERNATIVES = frozenset(
    frozenset(pair.split("/"))
    for pair in word_set("""
    true/false good/bad safe/dangerous safe/unsafe right/wrong legal/illegal yes/no possible/impossible
    healthy/unhealthy easy/hard easy/difficult normal/abnormal real/fake free/paid
    """)
)
_LINKS = word_set("a an the my your his her our their by with in on at to for from")
_IDLE = MEASURES | word_set("not so something anything more less maybe what is whatever later similar other another")
_MANNERS = frozenset(
    map(stem, word_set("way tip idea example method help advice info information reason thing time"))
)


def _quantifier(found: tuple[Token, ...], at: int) -> str | None:
    word = found[at].word
    before = found[at - 1].word if at else ""
    after = found[at + 1].word if at + 1 < len(found) else ""
    if word == "most":
        # Not the superlative: "most plans", "most of them", never "the most expensive".
        many = after in {"of", "people"} or (after.endswith("s") and not after.endswith("ss"))
        return "most" if many and (not at or before in _BEFORE_MOST) else None
    # "Not only", "if only", "at all", "all right", "in all", "each other", "why always me".
    if (word == "only" and before in {"not", "if"}) or (word == "all" and before in {"at", "not", "after", "first"}):
        return None
    # "Any way at all", "some way", "some good ways", "some examples": a manner of asking.
    if word == "some" and any(stem(t.word) in _MANNERS for t in found[at + 1 : at + 4]):
        return None
    return None if (word, after) in {("each", "other"), ("all", "right")} else _QUANTIFIERS.get(word)


_NONE_SAID: Counter[str] = Counter()


@lru_cache(maxsize=4096)
def _quantities(text: str) -> Counter[str]:
    if _SAYING.isdisjoint(said(text)):
        return _NONE_SAID
    found = tokens(text)
    return Counter([q for at, t in enumerate(found) if t.word in _SAYING and (q := _quantifier(found, at))])


@lru_cache(maxsize=4096)
def _alternatives(text: str) -> frozenset[tuple[str, str]]:
    """What stands before and behind an "or"."""
    if "or" not in said(text):
        return frozenset()
    found = tokens(text)
    pairs = set()
    for at, token in enumerate(found):
        if token.word == "or" and 0 < at < len(found) - 1:
            after = next((t for t in found[at + 1 : at + 4] if t.word not in _LINKS), None)
            before = found[at - 1]
            ends = at + 2 == len(found) or found[at + 2].word in _LINKS or found[at + 2].clause
            # "Days or weeks": the unit of the answer, not the subject of the question.
            if after is None or after.word in _IDLE or {before.kind, after.kind} != {"word"}:
                continue
            if not (ends and frozenset({before.word, after.word}) in _OPPOSITE_ALTERNATIVES):
                pairs.add((before.word, after.word))
    return frozenset(pairs)


def _narrowed(pairs: frozenset[tuple[str, str]], words: frozenset[str]) -> bool:
    """Does the other text, without an "or", name one alternative and leave the other out?"""
    return any(
        (stem(x) in words) != (stem(y) in words)
        and not alike(x, y)
        and not any(alike(z, w) for z in (x, y) if stem(z) not in words for w in words)
        for x, y in pairs
    )


def quantifier(asked: str, stored: str) -> str | None:
    """``quantifier``: of all, some, most, only, always, both, either; of one thing, or of it or another."""
    if not english(asked, stored):
        return None
    a, b = _quantities(asked), _quantities(stored)
    if a or b:
        if any(a[word] != b[word] for word in _TELLING):
            return "quantifier"
        more, less = a - b, b - a
        if any((x in more and y in less) or (y in more and x in less) for x, y in _APART):
            return "quantifier"
    a_pairs, b_pairs = _alternatives(asked), _alternatives(stored)
    narrowed = (a_pairs and not b_pairs and _narrowed(a_pairs, stems(stored))) or (
        b_pairs and not a_pairs and _narrowed(b_pairs, stems(asked))
    )
    return "quantifier" if narrowed else None
