"""Number words as numbers: "sixty thousand", "two and a half", "a dozen", "三百五十", "6万"."""

from __future__ import annotations

import re
from decimal import Decimal

from dispatch_core.guards.reading import Token, normal
from dispatch_core.guards.words import word_set

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(f"{_ONES} seventeen eighteen nineteen".split())}
_SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)} | {"fourty": 40}
_SCALE = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "lakhs": 10**5, "lac": 10**5, "crore": 10**7, "crores": 10**7, "dozen": 12,
}  # fmt: skip
# Nobody says more than this in words; a text that does must not cost more than one that does not.
_UNSAYABLE = 10**15
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_ORDINAL = {word: str(value) for value, word in enumerate(_ORDINALS.split(), start=1)}
# Louis XIV is Louis 14, typed in capitals or not. A single letter is a number in "Part V" only.
_NUMERALS = "ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix"
_ROMAN = {roman: str(value) for value, roman in enumerate(_NUMERALS.split(), start=2)}
_SERIES = word_set("part war volume chapter act phase type level stage book class grade tier schedule appendix")
_SPAN = word_set("""
    second minute hour day week month quarter year decade century kg kilo kilogram pound gram ton litre liter
    km kilometer kilometre mile foot inch meter metre dollar euro rupee gb mb tb gallon ounce cup acre
    """)


# Any other word is no number and no part of one.
_TRIGGERS = {*_SMALL, *_SCALE, *_ORDINAL, *_ROMAN, "half", "twice", "i", "a", "an", "per", "each", "every"}


def _number(value: Decimal | int, first: Token, soft: bool = False) -> Token:
    word = normal(format(Decimal(value), "f"))
    return first._replace(word=word, kind="number", soft=soft)


def _value(token: Token) -> Decimal | None:
    if token.kind == "number" and re.fullmatch(r"\d{1,20}(\.\d{1,9})?", token.word):
        return Decimal(token.word)
    return Decimal(_SMALL[token.word]) if token.kind == "word" and token.word in _SMALL else None


def _run(found: list[Token], start: int) -> tuple[Decimal, int] | None:
    """The number said from ``start`` on and where it ends: "two hundred and fifty", "60 thousand", "a dozen"."""
    total, part, at = Decimal(0), _value(found[start]), start + 1
    if found[start].word in {"a", "an"} and at < len(found) and found[at].word in _SCALE:
        part = Decimal(1)
    elif part is None and found[start].word in _SCALE:
        part, at = Decimal(1), start
    if part is None:
        return None
    while at < len(found) and part < _UNSAYABLE:
        word = found[at].word
        if word == "and" and [t.word for t in found[at : at + 3]] == ["and", "a", "half"]:
            part, at = part + Decimal("0.5"), at + 3
            continue
        if word in _SCALE:
            part = part * _SCALE[word]
            if _SCALE[word] >= 1000:
                total, part = total + part, Decimal(0)
        elif word in _SMALL and 0 < _SMALL[word] < 100 and found[at].kind == "word":
            # "twenty five", "thousand five", "hundred five"; but "two three" are two numbers.
            tens = 20 <= part % 100 < 100 and part % 10 == 0 and _SMALL[word] < 10
            scaled = found[at - 1].word in _SCALE or found[at - 1].word == "and"
            if not tens and not scaled:
                break
            part += _SMALL[word]
        elif word != "and" or found[at - 1].word not in _SCALE or not _continues(found, at + 1):
            break
        at += 1
    return total + part, at


def _continues(found: list[Token], at: int) -> bool:
    return at < len(found) and found[at].word in _SMALL and found[at].kind == "word"


def read_numbers(found: list[Token]) -> list[Token]:
    """Replace number words by number tokens. A lone "one", and "a" before a unit, become soft ones."""
    out: list[Token] = []
    at = 0
    while at < len(found):
        token = found[at]
        if token.kind == "word" and token.word not in _TRIGGERS:
            out.append(token)
            at += 1
            continue
        after = found[at + 1].word if at + 1 < len(found) else ""
        run = _run(found, at)
        if run is not None:
            value, end = run
            said_one = value == 1 and (token.kind == "word" or _unit_like(after))
            # A figure read alone keeps the normal form it has: a date, a version, a leading sign.
            alone = end == at + 1 and token.kind == "number"
            out.append(token._replace(soft=said_one) if alone else _number(value, token, said_one))
            at = end
            continue
        if token.kind == "word" and token.word == "half":
            token = token._replace(word="0.5", kind="number")
        elif token.kind == "word" and token.word == "twice":
            token = token._replace(word="2", kind="number")
        elif token.kind == "word" and token.word in _ORDINAL and not _is_time(out, token, after):
            token = token._replace(word=_ORDINAL[token.word], kind="number")
        elif token.kind == "word" and (roman := _roman(token.word, out[-1].word if out else "")):
            token = token._replace(word=roman, kind="number", soft=roman == "1")
        elif token.word in {"a", "an", "per", "each", "every"} and _unit_like(after):
            out.append(token._replace(word="1", kind="number", soft=True))
        out.append(token)
        at += 1
    return out


def _roman(word: str, before: str) -> str:
    if before in _SERIES and word == "i":
        return "1"
    return _ROMAN.get(word, "") if len(word) > 1 or before in _SERIES else ""


def _unit_like(word: str) -> bool:
    return word in _SPAN or word.removesuffix("s") in _SPAN


def _is_time(before: list[Token], token: Token, after: str) -> bool:
    """Is this "second" a sixtieth of a minute?"""
    last = before[-1] if before else None
    timed = not after or (last is not None and (last.kind == "number" or last.word == "per"))
    return token.word == "second" and timed


_HAN_DIGITS = {**dict(zip("零一二三四五六七八九", range(10), strict=True)), "〇": 0, "两": 2, "俩": 2}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_HAN_NUMBER = re.compile("(?:[0-9]+(?:\\.[0-9]+)?[百千万亿]+)|[零〇一二两三四五六七八九十百千万亿]+")
# 一 is mostly "a", "once", "same"; these and the words below count nothing.
_HAN_NOT = re.compile(
    "一下|一些|一样|一般|一直|一定|一起|一点|一切|一边|统一|唯一|万一|之一|一旦|同一|一共|一致|单一|一会儿?"
    "|千万(?!元|块|人|美)|十分|百度|万能|三星|百分比|四川|八卦|九寨|百事|万达|两性|一[个只条张种件位台部本家名]"
)


def _han_value(run: str) -> str:
    figure = re.match(r"[0-9]+(?:\.[0-9]+)?", run)
    if not figure and not any(char in _HAN_SCALES for char in run):
        return normal("".join(str(_HAN_DIGITS[char]) for char in run))
    total, part = Decimal(0), Decimal(0)
    digit = Decimal(figure.group()) if figure else None
    for char in run[figure.end() if figure else 0 :][:24]:
        if char in _HAN_DIGITS:
            digit = Decimal(_HAN_DIGITS[char])
        elif _HAN_SCALES[char] >= 10**4:
            total, part, digit = (total + part + (digit or 0) or Decimal(1)) * _HAN_SCALES[char], Decimal(0), None
        else:
            part, digit = part + (Decimal(1) if digit is None else digit) * _HAN_SCALES[char], None
    return normal(format(min(total + part + (digit or 0), Decimal(10**22)), "f"))


def with_digits(text: str) -> str:
    """Chinese numerals as figures, set apart by blanks: ``"六万元" -> " 60000 元"``."""
    masked = _HAN_NOT.sub(lambda match: "\ue000" * len(match.group()), text)
    pieces, last = [], 0
    for match in _HAN_NUMBER.finditer(masked):
        pieces += [text[last : match.start()], f" {_han_value(match.group())} "]
        last = match.end()
    return "".join([*pieces, text[last:]])
