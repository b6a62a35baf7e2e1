"""Where sentences end, in scripts that put a space after them and in those that do not. Pure.

In doubt two sentences stay one: a number, an abbreviation, a link, a citation, a bracket and a span of code are never
cut in half.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CLOSING = r"[\"'”’»)\]」』）》】*_]*"
_CITED = r"(?:[ \t]?\[[\d,;–\- ]{1,24}\]|[ \t]?\[\^\w{1,16}\])*"
# Each row of marks is looked at once, however long it is.
_END = re.compile(rf"(?:(?<![.!?…؟।])[.!?…؟।]++[“‘]?{_CLOSING}{_CITED}(?=\s)|[。！？｡]+{_CLOSING}{_CITED})")
_OPENING, _CLOSED = "([{（「『《【", ")]}）」』》】"
_MARKS = re.compile(r"[(\[{（「『《【“„`]")
_PATIENCE = 600
"""Characters for which an open bracket is believed: beyond, it was never closed."""

_SHORT = frozenset(
    {
        *(
            "dr",
            "mr",
            "mrs",
            "ms",
            "prof",
            "st",
            "sr",
            "jr",
            "vs",
            "no",
            "nos",
            "fig",
            "figs",
            "eq",
            "sec",
            "ch",
            "al",
        ),
        *(
            "vol",
            "pp",
            "p",
            "ed",
            "eds",
            "cf",
            "approx",
            "ca",
            "est",
            "dept",
            "inc",
            "ltd",
            "co",
            "corp",
            "etc",
            "art",
        ),
        *("gen", "col", "capt", "lt", "rev", "hon", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept"),
        *("oct", "nov", "dec", "min", "max", "tel", "ext", "para", "cl", "ref", "rev", "ver", "ed", "resp"),
        *("bzw", "usw", "evtl", "ggf", "inkl", "exkl", "zzgl", "vgl", "abs", "nr", "str", "hr", "fr", "frl", "mio"),
        *("mrd", "tsd", "ing", "dipl", "sog", "allg", "abb", "tab", "kap", "anm", "hrsg", "geb", "gest", "jh", "ff"),
        *("z", "b", "d", "h", "u", "a", "i", "s", "o", "v"),
        *("m", "mme", "mlle", "av", "env", "sra", "srta", "ud", "uds", "pág", "núm", "sig", "dott", "ecc"),
    }
)
"""Abbreviations of several languages, without their full stop."""


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The start and end of each sentence; only white space lies between them."""
    start = _skip(text, 0)
    for found in _END.finditer(text):
        end = found.end()
        if end <= start or _goes_on(text, start, found):
            continue
        yield start, end
        start = _skip(text, end)
    end = len(text.rstrip())
    if start < end:
        yield start, end


def _goes_on(text: str, start: int, found: re.Match[str]) -> bool:
    """Is this no end after all?"""
    following = _skip(text, found.end())
    after = text[following : following + 1]
    mark = found.group()[0]
    if mark in ".!?…" and after.islower():
        return True
    if mark == "." and found.group()[1:2] != "." and _abbreviated(text[start : found.start()]):
        return True
    return found.end() - start < _PATIENCE and _open(text[start : found.end()])


def _abbreviated(before: str) -> bool:
    """Does the full stop belong to the word before it: an abbreviation, an initial, an ordinal?"""
    word = before[max(before.rfind(" "), before.rfind("\n"), before.rfind("\t")) + 1 :].lstrip("([\"'“‘«*_")
    if word.isdigit():
        return len(word) <= 2
    return word.casefold() in _SHORT or (len(word) == 1 and word.isalpha()) or _dotted(word)


def _dotted(word: str) -> bool:
    """Letters with a full stop after each, such as "e.g" or "U.S"."""
    letters = word.split(".")
    return len(letters) > 1 and all(len(letter) <= 2 and letter.isalpha() for letter in letters)


def _open(sentence: str) -> bool:
    if _MARKS.search(sentence) is None:
        return False
    if sentence.count("`") % 2:
        return True
    # What opens a quotation elsewhere closes one in German.
    opens, closes = ("„", "“") if "„" in sentence else ("“", "”")
    pairs = [*zip(_OPENING, _CLOSED, strict=True), (opens, closes)]
    return any(sentence.count(left) > sentence.count(right) for left, right in pairs)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
