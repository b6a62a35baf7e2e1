"""Lines that only together say something: metadata of a chunk, records of names and values, columns. Pure.

``lines`` are the starts and ends of a text's lines; each function returns the number of the line after what begins at
the line ``at``, and ``at`` itself if nothing of its kind does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_METADATA = re.compile(r"([a-z][\w -]{0,30}): ?\S[^\n]{0,300}$")
_FIELD = re.compile(r"[ \t]*([^\W\d_][\w .()/&'-]{0,38})[:：](?!//)[ \t]?\S[^\n]{0,160}$")
_SEPARATORS = (
    (re.compile(r"\t"), 1),
    (re.compile(r";(?!\s)"), 1),
    (re.compile(r",(?!\s)"), 2),  # one of them may divide the thousands of a number
    (re.compile(r"(?<![.!?:;,]) {2,}(?=\S)"), 1),  # after a full stop, some put two spaces
)
_SOMETHING = re.compile(r"\S")
_DIGIT = re.compile(r"\d")
_MOST, _LONGEST = 24, 600
"""Lines and characters of a paragraph of names and values; a longer one is no record."""

_FEWEST = 3
"""Lines in a row with as many separators that make a table."""


def metadata_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> int:
    """A paragraph of names and values that something else follows, as LlamaIndex writes metadata above a chunk."""
    last = at
    most = min(len(lines), at + _MOST)
    while last < most and _METADATA.match(text, *lines[last]):
        last += 1
    ended = last < len(lines) and _blank(text, lines, last)
    if last == at or not ended or not _SOMETHING.search(text, lines[last][1]):
        return at
    name = _name(text, lines[at])
    beside = (_first_above(text, lines, at), _first_below(text, lines, last))
    # One of several records is nobody's metadata.
    return at if any(one is not None and _name(text, lines[one]) == name for one in beside) else last


def record_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> int:
    """A short paragraph of names and values, each name once: in a chat, names come again."""
    if at and _name(text, lines[at - 1]) is not None:
        return at
    last = at
    names: set[str] = set()
    while last < len(lines) and not _blank(text, lines, last):
        name = _name(text, lines[last])
        if name is None or name in names or len(names) == _MOST:
            return at
        names.add(name)
        last += 1
    short = lines[last - 1][1] - lines[at][0] <= _LONGEST
    return last if len(names) > 1 and short else at


def columns_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[int, int]:
    """Lines in columns by tabs, commas, semicolons or spaces, and how many of them are their head: 1 or 0."""
    if not all(start < end for start, end in lines[at : at + _FEWEST]):
        return at, 0
    for separator, fewest in _SEPARATORS:
        columns = _columns(separator, text, lines[at])
        last = at
        while columns >= fewest and last < len(lines) and _columns(separator, text, lines[last]) == columns:
            last += 1
        if last - at >= _FEWEST:
            return last, int(not _DIGIT.search(text, *lines[at]))
    return at, 0


def _columns(separator: re.Pattern[str], text: str, line: tuple[int, int]) -> int:
    return sum(1 for _ in separator.finditer(text, line[0] + _indent(text, line), line[1]))


def _indent(text: str, line: tuple[int, int]) -> int:
    piece = text[line[0] : line[1]]
    return len(piece) - len(piece.lstrip(" "))


def _name(text: str, line: tuple[int, int]) -> str | None:
    found = _FIELD.match(text, *line)
    return None if found is None else found[1].casefold()


def _blank(text: str, lines: Sequence[tuple[int, int]], at: int) -> bool:
    return not text[lines[at][0] : lines[at][1]].strip()


def _first_above(text: str, lines: Sequence[tuple[int, int]], at: int) -> int | None:
    """The first line of the paragraph above, or one of its last."""
    last = at - 1
    while last >= 0 and _blank(text, lines, last):
        last -= 1
    first = last
    while first > max(0, last - _MOST) and not _blank(text, lines, first - 1):
        first -= 1
    return first if last >= 0 else None


def _first_below(text: str, lines: Sequence[tuple[int, int]], at: int) -> int | None:
    while at < len(lines) and _blank(text, lines, at):
        at += 1
    return at if at < len(lines) else None
