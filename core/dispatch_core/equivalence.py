"""Do two stored answers say the same? Pure; a doubt means no, which costs a hit and never a wrong answer.

`same_answer` compares normal forms: case, white space, closing punctuation, emphasis and a leading article do not
count; numbers, signs, symbols, brackets, units and code do. `same_entry` applies it to what the fronts store.
A cache whose answers are free text may plug in another `Equivalence`: `dispatch_core.alike.AnswersAlike`, or a judge
of its own.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from dispatch_core.types import Entry

Equivalence = Callable[[Entry, Entry], bool]
"""Whether either entry could be served for the other. Meant to be symmetric and transitive."""

_LONGEST = 32_768
"""Bytes up to which a payload is read, for reading takes time; longer ones compare as bytes."""

_SHORT_NAME = 64
_SPOKEN = frozenset({"text", "content"})
_SILENT = frozenset({"thinking", "reasoning"})
_OPAQUE = frozenset({"tool", "tools", "function", "image", "audio", "video", "file", "document"})
"""Words in names of fields and kinds of blocks that say more than text does: with one, only equal bytes are equal."""

_WORDS = re.compile(r"[A-Z]?[a-z]+")
_MARKED = ("<super>", "<sub>", "<fraction>")
# Before a letter: "> 5 days" and "- 5" mean it.
_LINE_MARK = re.compile(r"^[ \t]*(?:#{1,6}|>|[-*+•])[ \t]+(?=[^\W\d_]|\*)", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<!\w)(\*{1,3}|`)(?=[^\s*`])([^*`\n]*[^\s*`])\1(?!\w)")
_THOUSANDS = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?![\w,])")
# What a number counts keeps its case: 5 MW are not 5 mW.
_UNIT = re.compile(r"(\d\s?[^\W\d_]{1,3})\b")
_ARTICLE = re.compile(r"\A(?:the|an?)\s+(?=[^\W\d_]{2})")
# These start with what is rare, which is looked for fast.
_OPENING = re.compile(r"[\"'“‘«](?<!\S.)(?=\w)")
_MARKS = re.compile(r"[.,;:!?…\"'”’»]+")
_MEANT_AFTER_DIGITS = "!\"'”’»"


def same_answer(a: str, b: str) -> bool:
    """Whether two texts differ in nothing but their dress. An equivalence relation.

    >>> same_answer("**The limit** is 60,000 tokens.", "the limit is 60000 tokens")
    True
    >>> same_answer("It costs $5.", "It costs $-5.")
    False
    """
    return a == b or normal_form(a) == normal_form(b)


def normal_form(text: str) -> str:
    """What `same_answer` compares. Texts with a block of code are only stripped."""
    if "```" in text or "\n    " in text or "\n\t" in text:
        return text.strip()
    form = text if text.isascii() else unicodedata.normalize("NFKC", "".join(map(_marked, text)))
    form = _LINE_MARK.sub("", form)
    if "*" in form or "`" in form:
        form = _EMPHASIS.sub(r"\2", form)
    if "," in form:
        form = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), form)
    form = "".join(part if odd % 2 else part.casefold() for odd, part in enumerate(_UNIT.split(form)))
    form = _MARKS.sub(_unless_meant, _ARTICLE.sub("", _OPENING.sub("", form.strip())))
    return " ".join(form.split()) or text.strip()


def _unless_meant(marks: re.Match[str]) -> str:
    """Nothing at the end of a word; inside, as in 3.5, .5 and it's, all. 5' and 5" are lengths, 5! is a factorial."""
    text, start, end = marks.string, marks.start(), marks.end()
    inside = end < len(text) and not text[end].isspace()
    counted = start > 0 and text[start - 1].isdigit() and marks[0][0] in _MEANT_AFTER_DIGITS
    return marks[0] if inside or counted else ""


def same_entry(a: Entry, b: Entry) -> bool:
    """Equal payloads; or payloads of nothing but text, plain or in JSON, that is the `same_answer`. Never raises."""
    if a.payload == b.payload:
        return True
    form = _form(a.payload)
    return form is not None and form == _form(b.payload)


def clusters(entries: Sequence[Entry], same: Equivalence = same_entry) -> list[int]:
    """For each entry, the index of the first entry that has its answer.

    Compares with one entry of each cluster only, so ``same`` is asked at most ``n (n - 1) / 2`` times, and ``n - 1``
    times when all agree.
    """
    if same is same_entry:
        return _clusters_of_forms(entries)
    labels: list[int] = []
    firsts: list[int] = []
    for index, entry in enumerate(entries):
        label = next((first for first in firsts if same(entries[first], entry)), index)
        if label == index:
            firsts.append(index)
        labels.append(label)
    return labels


def _clusters_of_forms(entries: Sequence[Entry]) -> list[int]:
    """What `clusters` comes to with `same_entry`: that is equality of something, which can be looked up."""
    if len({entry.payload for entry in entries}) == 1:
        return [0] * len(entries)
    firsts: dict[bytes | str, int] = {}
    forms = ((entry.payload, _form(entry.payload)) for entry in entries)
    return [
        firsts.setdefault(payload if form is None else form, index) for index, (payload, form) in enumerate(forms)
    ]


def spoken(payload: bytes) -> str | None:
    """The text of an answer; None for a payload that is longer than is read, or says more than text."""
    said = _spoken(payload)
    return None if said is None else "\n".join(said)


@lru_cache(maxsize=1024)
def _form(payload: bytes) -> str | None:
    """The normal form of everything a payload says; None if it is not only text."""
    said = _spoken(payload)
    return None if said is None else "\0".join(map(normal_form, said))


def _spoken(payload: bytes) -> list[str] | None:
    if len(payload) > _LONGEST:
        return None
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    if not isinstance(data, list | dict):
        return [data if isinstance(data, str) else text]
    return _said(data)


def _said(data: Any) -> list[str] | None:
    """Texts in a payload's JSON, in order and without repetitions; None if there are none, or more than texts.

    A front writes the text into fields called ``text`` or ``content``, beside names, ids and metadata which are often
    longer than a short answer. What was thought before answering does not count.
    """
    said: dict[str, None] = {}
    waiting: list[tuple[str, Any]] = [("", data)]
    while waiting:
        name, value = waiting.pop()
        if value and _opaque(name):
            return None
        if isinstance(value, str) and name in _SPOKEN:
            said[value] = None
        elif isinstance(value, list):
            waiting += [(name, item) for item in reversed(value)]
        elif isinstance(value, dict):
            kind = str(value.get("block_type") or value.get("type"))
            if _opaque(kind):
                return None
            if kind not in _SILENT:
                waiting += reversed(value.items())
    return list(said) if any(map(str.strip, said)) else None


def _opaque(name: str) -> bool:
    return _known_opaque(name) if len(name) <= _SHORT_NAME else _names_more(name)


def _names_more(name: str) -> bool:
    return any(word.lower() in _OPAQUE for word in _WORDS.findall(name))


_known_opaque = lru_cache(maxsize=1024)(_names_more)


def _marked(char: str) -> str:
    """Superscripts and fractions stay apart from the digits before them: 10² is not 102."""
    return f"^{char}" if unicodedata.decomposition(char).startswith(_MARKED) else char
