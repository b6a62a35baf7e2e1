"""A text as tokens: the one reading every English guard, and every number guard, starts from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["word", "number", "code"]


class Token(NamedTuple):
    """One word, number or identifier; ``word`` is its normal form, ``surface`` what was typed."""

    word: str
    surface: str
    kind: Kind = "word"
    clause: bool = False  # first after a full stop, comma, bracket, dash, or at the beginning
    sentence: bool = False  # first of a sentence: a capital letter means nothing here
    soft: bool = False  # a number that need not be said: "in a year" is "in 1 year"


_CODE = r"""
    (?P<code>
        (?:https?://|www\.)[^\s,;!?"'`<>]+ | [\w.+-]{1,64}@[\w-]+\.[\w.]+
      | (?<![\w/.~])(?:~|\.{1,2})?/(?:[\w.+-]+/)*[\w+-][\w.+-]* | (?<!\w)[A-Za-z]:\\[^\s"'`]+
      | (?<![\w-])--[A-Za-z][\w-]* | (?<![\w-])-[A-Za-z]{1,2}(?![\w-])
      | 0[xX][0-9A-Fa-f]+
      | (?<!\w)\.[nN][eE][tT]\b | (?<!\w)[A-Za-z](?:\+\+|\#)(?!\w)
      | [^\W\d]\w*(?:\.[^\W\d]\w*)+(?:\(\))? | [^\W\d]\w*\(\) | [^\W_]+(?:_+[^\W_]+)+ | _+[^\W\d]\w*
    )"""
_FIGURE = r"""
    (?:(?P<currency>[$€£¥₹])(?=\s?\d)\s?)?(?P<figure>
        \d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?![\d\w]) | \d{1,2}:\d{2}(?!\d) | \d+(?:\.\d+){2,}
      | \d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?(?!\d) | \d/\d(?!\d) | (?<![\w)])-?\d+(?:[.,]\d+)? | \d+(?:[.,]\d+)?
    )(?P<suffix>[^\W\d_]{1,12}(?![\w])|\s?%)? (?P<after>\s?[€£$](?!\s?\d))?"""
_WORD = r"(?P<alnum>[^\W_]*[^\W\d_]-?\d[^\W_]*)|(?P<word>[^\W_]+(?:'[^\W_]+)*)|(?P<stop>[.?!:;,()\[\]\n–—…|])"
_TOKEN = re.compile(f"{_CODE}|(?P<mixed>\\d+[A-Za-z]+\\d\\w*)|{_FIGURE}|{_WORD}", re.VERBOSE)
# What may stand apart from its figure by a blank, and a stop that is a blank.
_SIMPLE = re.compile(r"[A-Za-z0-9 ,.?!'-]*")
_APART = re.compile(r"[$€£¥₹%\n]")
_SHORT = 40
_STOPS = frozenset(".?!:;,")
_FULL_STOPS = frozenset(".?!")
_NAME_AND_NUMBER = re.compile(r"([^\W\d_]{2,})-?(\d+)")
_STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "⁄": "/", "`": " ", '"': " ", "´": "'"})

_SYMBOLS = {"$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "%": "percent"}
_SCALES = {"k": 3, "mn": 6, "mio": 6, "bn": 9, "lakh": 5, "lakhs": 5, "crore": 7, "crores": 7}
_FRACTIONS = {"1/2": "0.5", "1/4": "0.25", "3/4": "0.75"}

# Typed with or without the apostrophe; "were", "well", "id", "ill", "shell" are words of their own.
_NEGATED = {
    "can": "can", "wo": "will", "do": "do", "does": "does", "did": "did", "is": "is", "are": "are",
    "was": "was", "were": "were", "has": "has", "have": "have", "had": "had", "could": "could",
    "would": "would", "should": "should", "must": "must", "ai": "is", "sha": "shall", "need": "need",
}  # fmt: skip
CONTRACTIONS: dict[str, tuple[str, ...]] = {
    **{f"{short}n't": (full, "not") for short, full in _NEGATED.items()},
    **{f"{short}nt": (full, "not") for short, full in _NEGATED.items()},
    "can't": ("can", "not"), "cant": ("can", "not"), "cannot": ("can", "not"),
    "im": ("i", "am"), "ive": ("i", "have"), "whats": ("what", "is"), "hows": ("how", "is"),
    "wheres": ("where", "is"), "whos": ("who", "is"), "whens": ("when", "is"), "let's": ("let", "us"),
    "wanna": ("want", "to"), "gonna": ("going", "to"), "u": ("you",), "ur": ("your",), "pls": ("please",),
    "plz": ("please",), "cuz": ("because",), "thru": ("through",), "ww": ("world", "war"),
    "wwi": ("world", "war", "i"), "wwii": ("world", "war", "ii"),
}  # fmt: skip
_ENDINGS = {"'ve": "have", "'re": "are", "'ll": "will", "'m": "am", "'d": "would"}


def folded(text: str) -> str:
    """NFKC, straight quotes, no difference of case: what "typed the same" means for the guards."""
    return unicodedata.normalize("NFKC", text).translate(_STRAIGHT).casefold()


def normal(figure: str, power: int = 0) -> str:
    """``normal("60,000") == normal("60", 3) == "60000"``; ``normal("1.50") == "1.5"``."""
    if figure in _FRACTIONS:
        return _FRACTIONS[figure]
    if not re.fullmatch(r"-?[\d,]{1,24}(?:\.\d{1,12})?", figure):
        return figure
    # A comma before one or two last digits is a decimal comma, before three it groups.
    plain = figure.replace(",", "." if re.fullmatch(r"-?\d+,\d{1,2}", figure) else "")
    value = format(Decimal(plain).scaleb(power).normalize(), "f")
    return "0" if value == "-0" else value


def _words(surface: str, first: Token) -> Iterator[Token]:
    word = surface.casefold()
    if word in CONTRACTIONS:
        whole = CONTRACTIONS[word]
    elif "'" in word:
        base, _, end = word.rpartition("'")
        whole = (base, _ENDINGS["'" + end]) if "'" + end in _ENDINGS else (base if end == "s" else word,)
    else:
        whole = (word,)
    yield first._replace(word=whole[0], surface=surface.removesuffix("'s").removesuffix("'S"))
    for part in whole[1:]:
        yield Token(part, part)


def _figure(match: re.Match[str], first: Token) -> Iterator[Token]:
    figure, suffix = match["figure"], (match["suffix"] or "").strip().casefold()
    money = match["currency"] or (match["after"] or "").strip()
    power = _SCALES.get(suffix, 0)
    if money and suffix in {"m", "b"}:
        power = 6 if suffix == "m" else 9
    if ":" in figure:
        hour, minute = figure.split(":")
        figure = normal(hour) if minute == "00" else f"{normal(hour)}:{minute}"
    # "1990s", "20s": a decade is not a number of seconds.
    decade = suffix == "s" and figure.endswith("0") and len(figure) in {2, 4}
    yield first._replace(word=normal(figure, power), surface=match["figure"], kind="number")
    if money:
        yield Token(_SYMBOLS[money], money)
    if suffix and not power and not decade and suffix not in {"st", "nd", "rd", "th"}:
        yield Token(_SYMBOLS.get(suffix, suffix), suffix)


def _sentence_joint(surface: str) -> bool:
    """Is "end.How" two sentences typed without a space, and not a dotted name?"""
    left, dot, right = surface.rpartition(".")
    return bool(dot) and "." not in left and left.islower() and right.istitle() and len(right) < 6


class _Piece(NamedTuple):
    tokens: tuple[Token, ...]
    clause: bool  # what the first token behind this piece begins
    sentence: bool


def _piece(text: str, clause: bool, sentence: bool) -> _Piece:
    # Most are one word, and perhaps the stop behind it.
    stopped = text[-1] in _STOPS
    bare = text[:-1] if stopped else text
    if bare.isalpha() and bare.isascii() and (word := bare.lower()) not in CONTRACTIONS:
        return _Piece((Token(word, bare, "word", clause, sentence),), stopped, stopped and text[-1] in _FULL_STOPS)
    first = Token("", "", clause=clause, sentence=sentence)
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind, surface = match.lastgroup, match.group()
        blank = Token("", "")
        if kind == "stop":
            first = first._replace(clause=True, sentence=first.sentence or surface not in ",()[]–—:;|")
            continue
        if kind == "code" and _sentence_joint(surface):
            left, _, right = surface.rpartition(".")
            found += _words(left, first)
            found += _words(right, Token("", "", clause=True, sentence=True))
        elif kind in {"code", "mixed"}:
            word = surface.casefold().rstrip(".")
            found.append(first._replace(word=word if word[0] != "-" else surface, surface=surface, kind="code"))
        elif match["figure"]:
            found += _figure(match, first)
        elif kind == "alnum" and (parts := _NAME_AND_NUMBER.fullmatch(surface)):
            # "GPT-4", "gpt4" and "gpt 4" read alike.
            found.append(first._replace(word=parts[1].casefold(), surface=parts[1]))
            found.append(Token(normal(parts[2]), parts[2], "number"))
        elif kind == "alnum":
            found.append(first._replace(word=surface.casefold().replace("-", ""), surface=surface))
        else:
            found += _words(surface, first)
        first = blank
    return _Piece(tuple(found), first.clause, first.sentence)


_known_piece = lru_cache(maxsize=16384)(_piece)


def scan(text: str) -> list[Token]:
    """The tokens as they were typed, contractions opened."""
    if not _SIMPLE.fullmatch(text):
        text = unicodedata.normalize("NFKC", text).translate(_STRAIGHT)
    # Word by word, as most words were read before; but "5 %" is one figure, and the end of a line is a stop.
    pieces = [text] if _APART.search(text) else text.split()
    found: list[Token] = []
    clause = sentence = True
    for piece in pieces:
        read = _known_piece if len(piece) <= _SHORT else _piece
        more, clause, sentence = read(piece, clause, sentence)
        found += more
    return found


@lru_cache(maxsize=4096)
def _has_han(text: str) -> bool:
    return bool(re.search("[\u3400-\u9fff]", text)) and not re.search("[\u3040-\u30ff\uac00-\ud7af]", text)


def has_han(text: str) -> bool:
    """Is this Chinese? Han characters without kana or hangul, which would make it Japanese or Korean."""
    return not text.isascii() and _has_han(text)


@lru_cache(maxsize=4096)
def _alphabetic(text: str) -> bool:
    return not re.search("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", text)


def english(asked: str, stored: str) -> bool:
    """May the English rules read these? Anything without Han, kana or hangul."""
    return (asked.isascii() or _alphabetic(asked)) and (stored.isascii() or _alphabetic(stored))
