"""Chinese: negation, opposites, question words, exchanged things and exchanged roles."""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher
from functools import lru_cache

from dispatch_core.guards.chinese_lexicon import EMPTY, KINDS, NEGATIVE, NOT_NEGATIVE, OPPOSITES, SAME, SINGLE
from dispatch_core.guards.phrases import tokens
from dispatch_core.guards.reading import has_han

_QUESTIONS = tuple(
    (re.compile(words), frozenset(kinds.split()))
    for words, kinds in (
        ("(?<!无论)谁", "who"),
        ("哪里|哪儿|在哪|什么地方|何处", "where"),
        ("什么时候|什么时间|何时|几点|哪天|几号|哪年|啥时候", "when"),
        ("多少|几[个只条张种件块元次位本岁]", "many"),
        ("多久|多长时间|几[天年]|几个?小时|几个?月", "long"),
        ("为什么|为何|为啥|怎么会|怎么回事|什么原因", "why"),
        ("多大|多高|多远|多重", "degree"),
    )
)
_CONNECTORS = re.compile("换成|转成|转换成|变成|[到去至往比给转换把被让对向和跟]")
_COORDINATORS = frozenset("和跟")


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=4096)
def _core(text: str) -> str:
    """What is left without politeness, particles and differences of wording."""
    plain = re.sub(r"[^\w]", "", _plain(text))
    for spellings, one in SAME:
        plain = spellings.sub(one, plain)
    return EMPTY.sub("", plain)


@lru_cache(maxsize=4096)
def _negative(text: str) -> bool:
    return len(NEGATIVE.findall(NOT_NEGATIVE.sub("", _plain(text)))) % 2 == 1


def _chinese(asked: str, stored: str) -> bool:
    return has_han(asked) and has_han(stored)


def negation(asked: str, stored: str) -> str | None:
    """``negation``: 不, 没, 无 ... deny in one text what the other asserts; 能不能, 是不是 deny nothing."""
    return "negation" if _chinese(asked, stored) and _negative(asked) != _negative(stored) else None


@lru_cache(maxsize=4096)
def _sides(text: str) -> tuple[frozenset[int], frozenset[int]]:
    plain = _plain(text)
    left, right = ({n for n, pair in enumerate(OPPOSITES) if pair[side].search(plain)} for side in (0, 1))
    return frozenset(left - right), frozenset(right - left)


def antonym(asked: str, stored: str) -> str | None:
    """``antonym``: 打开 here, 关闭 there."""
    if not _chinese(asked, stored):
        return None
    (a_left, a_right), (b_left, b_right) = _sides(asked), _sides(stored)
    return "antonym" if a_left & b_right or a_right & b_left else None


@lru_cache(maxsize=4096)
def _answers(text: str) -> frozenset[str]:
    plain = _plain(text)
    return frozenset(kind for words, kinds in _QUESTIONS if words.search(plain) for kind in kinds)


def question_word(asked: str, stored: str) -> str | None:
    """``question-word``: 谁, 哪里, 什么时候, 多少, 多久, 为什么 ask for different kinds of answer."""
    if not _chinese(asked, stored):
        return None
    a, b = _answers(asked), _answers(stored)
    if a and b:
        return "question-word" if a.isdisjoint(b) else None
    # 怎么 asks for a way, or, before a complaint, for a cause; only against the other kinds is it clear.
    way = re.search("怎么(?!样)|如何|怎样", _plain(asked if not a else stored))
    return "question-word" if way and (a | b) & {"who", "when", "long"} else None


@lru_cache(maxsize=4096)
def _classed(text: str) -> tuple[frozenset[str], ...]:
    plain = _plain(text)
    return tuple(frozenset(members.findall(plain)) for members in KINDS)


@lru_cache(maxsize=4096)
def _latin(text: str) -> frozenset[str]:
    found = tokens(re.sub("[\u3400-\u9fff]", " ", text))
    return frozenset(t.word for t in found if t.kind == "word" and t.word.isascii())


def entity(asked: str, stored: str) -> str | None:
    """``entity``: other Latin names, or another member of a class: cities, colours, brands, days, units."""
    if not _chinese(asked, stored):
        return None
    if _latin(asked) != _latin(stored):
        return "entity"
    pairs = zip(_classed(asked), _classed(stored), strict=True)
    return "entity" if any(a - b and b - a for a, b in pairs) else None


def substitution(asked: str, stored: str) -> str | None:
    """``substitution``: the same sentence with one piece exchanged: 苹果怎么吃, 香蕉怎么吃."""
    if not _chinese(asked, stored):
        return None
    a, b = sorted((_core(asked), _core(stored)))
    if a == b or max(len(a), len(b)) > 200:
        return None
    edits = [op for op in SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op[0] != "equal"]
    if any(frozenset({a[i:j], b[k:m]}) in SINGLE for _, i, j, k, m in edits):
        return "substitution"
    if len(edits) != 1 or edits[0][0] != "replace":
        return None
    _, i, j, k, m = edits[0]
    kept = len(a) - (j - i)
    return "substitution" if max(j - i, m - k) <= 4 and kept >= max(j - i, m - k, 2) else None


def swap(asked: str, stored: str) -> str | None:
    """``swap``: 从A到B, A比B, A转B with A and B exchanged."""
    if not _chinese(asked, stored):
        return None
    a, b = _core(asked), _core(stored)
    if a == b or len(a) > 200 or sorted(a) != sorted(b):
        return None
    return "swap" if any(_exchanged(a, b, m) for m in _CONNECTORS.finditer(a)) or _reversed(a, b) else None


def _exchanged(a: str, b: str, connector: re.Match[str]) -> bool:
    if connector.group() in _COORDINATORS:
        return False
    left, right = a[: connector.start()], a[connector.end() :]
    for other in re.finditer(connector.group(), b):
        b_left, b_right = b[: other.start()], b[other.end() :]
        x = any(left.endswith(b_right[:n]) for n in range(1, min(len(left), len(b_right)) + 1))
        y = any(b_left.endswith(right[:n]) for n in range(1, min(len(b_left), len(right)) + 1))
        if x and y:
            return True
    return False


def _reversed(a: str, b: str) -> bool:
    """Does one character before, one inside and one after come in the opposite order: 狗咬人, 人咬狗?"""
    if _COORDINATORS & set(a):
        return False
    order = [b.index(char) for char in a if a.count(char) == 1]
    return any(
        order[i] > order[j] > order[k]
        for j in range(1, len(order) - 1)
        for i in [max(range(j), key=order.__getitem__)]
        for k in [min(range(j + 1, len(order)), key=order.__getitem__)]
    )
