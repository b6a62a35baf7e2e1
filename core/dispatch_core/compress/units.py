"""A context in the units that are kept or left out: sentences, list items, table rows, blocks of code. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatch_core.compress.json_text import end_of_value
from dispatch_core.compress.records import columns_end, metadata_end, record_end
from dispatch_core.compress.sentences import sentences

_FENCE = re.compile(r"[ \t]*(?:[-*+>][ \t]+)?(`{3,}|~{3,})")
_HEADING = re.compile(r"[ \t]*(#{1,6})[ \t]+\S")
_ITEM = re.compile(r"[ \t]*(?:[-*+•·▪◦]|\d{1,3}[.)、]|\(\w{1,3}\)|（\w{1,3}）)[ \t]+\S")
_REFERENCE = re.compile(r"[ \t]*\[\^?\w{1,12}\]:?[ \t]+\S")
_NAMED = re.compile(r"[ \t]*[^\W\d_a-z][\w .()/&'-]{0,38}[:：](?!//)[ \t]?\S")
_TABLE = re.compile(r"[ \t]*\|")
_RULE = re.compile(r"[\s|:\-+=]+$")
_LINE = re.compile(r"[ \t]*(?:[-=*_~]{3,}|</?[A-Za-z][^<>]*>)[ \t]*$")
_INDENTED = re.compile(r"(?: {4}|\t)")
_OPENS_JSON = re.compile(r" {0,3}[{\[]")
_FOLLOWS = re.compile(r"\S")
_BLOCKS = (("<pre", "</pre>"), ("$$", "$$"))
_ENDED = re.compile(r"[.!?…:;,。！？：；，।؟)\]\"'”’»`]\s*$")
_BEGINS = (_FENCE, _LINE, _HEADING, _TABLE, _ITEM)
_LONG_ITEM, _HEADLINE, _NARROW, _WRAPPED = 400, 80, 30, 0.6
_ATTEMPTS = 64
"""Lines that look like JSON and are none, after which a text is taken to hold no more of it."""

_LABELS = ("heading", "head")
_ABOVE = ("heading", "title")
_MINOR, _TITLE = 8, 7
"""The levels of headlines that are marked by nothing but standing alone, and standing right above another one."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A stretch of text that is kept or left out as a whole, and the white space ``gap`` after it.

    ``parents`` are the units without which it is not understood: headings, the head of a table, the words before a
    list. A ``label`` is worth nothing alone. What is ``fixed`` always stays. ``block`` numbers the paragraph.
    """

    text: str
    gap: str
    parents: tuple[int, ...] = ()
    label: bool = False
    fixed: bool = False
    block: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch by its offsets, and what it is: code, json, line, head, row, heading, title, item or prose."""

    start: int
    end: int
    kind: str
    level: int = 0


def units_of(text: str) -> tuple[str, list[Unit]]:
    """The white space before the first unit, and the units; joined with their gaps they are the text."""
    found: list[tuple[int, int, tuple[int, ...], Span, int]] = []
    headings: list[tuple[int, int]] = []
    head: int | None = None
    intro: int | None = None
    previous = ""
    for block, span in enumerate(spans(text)):
        number = len(found)
        if span.kind in _ABOVE:
            headings = [one for one in headings if one[0] < span.level]
        head = head if span.kind == "row" else None
        # A list is over where a table begins.
        intro = intro if span.kind in ("item", "row", "head") and (previous, span.kind) != ("item", "head") else None
        previous = span.kind
        above = (*(one for _, one in headings), *(one for one in (intro, head) if one is not None))
        found += [(start, end, above, span, block) for start, end in _pieces(text, span)]
        if span.kind in _ABOVE:
            headings.append((span.level, number))
        elif span.kind == "head":
            head = number
        elif span.kind == "prose" and text[found[-1][1] - 1] in ":：":
            intro = len(found) - 1
    starts = [*(one[0] for one in found), len(text)]
    units = [
        Unit(text[start:end], text[end:following], above, span.kind in _LABELS, span.kind == "line", block)
        for (start, end, above, span, block), following in zip(found, starts[1:], strict=True)
    ]
    return text[: starts[0]], units


def joined(before: str, units: Sequence[Unit], kept: Sequence[bool]) -> str:
    """The units that are kept, in their order; between two of them the widest gap there was."""
    pieces: list[str] = []
    gap = ""
    for unit, stays in zip(units, kept, strict=True):
        if stays:
            pieces += [gap if pieces else before, unit.text]
            gap = unit.gap
        elif (unit.gap.count("\n"), len(unit.gap)) > (gap.count("\n"), len(gap)):
            gap = unit.gap
    if not units:
        return before
    # The text ends as it did.
    return "".join([*pieces, units[-1].gap]) if pieces else ""


def spans(text: str) -> Iterator[Span]:
    """The blocks of a text in order, without the white space between them."""
    lines = _lines(text)
    at, patience = 0, _ATTEMPTS
    while at < len(lines):
        start, end = lines[at]
        if not text[start:end].strip():
            at += 1
            continue
        if patience and _OPENS_JSON.match(text, start, end):
            after = _json_end(text, lines, at)
            if after is not None:
                yield Span(start, lines[after - 1][1], "json")
                at = after
                continue
            patience -= 1
        found, at = _block(text, lines, at)
        yield from found


def _lines(text: str) -> list[tuple[int, int]]:
    """Start and end of each line, without its line break."""
    lines, start = [], 0
    for piece in text.split("\n"):
        lines.append((start, start + len(piece)))
        start += len(piece) + 1
    return lines


def _block(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[list[Span], int]:
    """The block that begins with this line, and the number of the line after it."""
    start, end = lines[at]
    line = text[start:end]
    after = _code_end(text, lines, at)
    if after is not None:
        return [Span(start, lines[after - 1][1], "code")], after
    if _TABLE.match(line):
        return _table(text, lines, at)
    last, heads = columns_end(text, lines, at)
    if last > at:
        kinds = ["head"] * heads + ["row"] * (last - at - heads)
        return [Span(*lines[at + row], kind) for row, kind in enumerate(kinds)], last
    if _LINE.match(line):
        return [Span(start, end, "line")], at + 1
    if heading := _HEADING.match(line):
        return [Span(start, end, "heading", len(heading[1]))], at + 1
    return _paragraph(text, lines, at)


def _paragraph(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[list[Span], int]:
    start, end = lines[at]
    if (last := metadata_end(text, lines, at)) > at:
        # It says where the chunk comes from that begins here.
        return [Span(start, lines[last - 1][1], "heading")], last
    if (last := record_end(text, lines, at)) > at:
        return [Span(start, lines[last - 1][1], "item")], last
    last = _paragraph_end(text, lines, at)
    item = _ITEM.match(text, start, end) or _REFERENCE.match(text, start, end)
    if not item and last == at + 1 and _headline(text, lines, at):
        named = _NAMED.match(text, start, end) is not None
        if _above_another(text, lines, last):
            # What names something may be worth something alone.
            return [Span(start, end, "title" if named else "heading", _TITLE)], last
        if not named:
            return [Span(start, end, "heading", _MINOR)], last
    return [Span(start, lines[last - 1][1], "item" if item else "prose")], last


def _code_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> int | None:
    """The number of the line after a block of code or formulas that begins here."""
    start, end = lines[at]
    line = text[start:end]
    if fence := _FENCE.match(line):
        return _fenced(text, lines, at, fence[1])
    for opens, closes in _BLOCKS:
        if line.lstrip().startswith(opens):
            found = text.find(closes, start + len(line) - len(line.lstrip()) + len(opens))
            return _line_after(lines, at, len(text) if found < 0 else found)
    if _INDENTED.match(line) and not _ITEM.match(line):
        last = at
        while last < len(lines) and _INDENTED.match(text[lines[last][0] : lines[last][1]]):
            last += 1
        return last
    return None


def _json_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> int | None:
    """The number of the line after a value of JSON that begins here."""
    start, stop = lines[at]
    end = end_of_value(text, stop - len(text[start:stop].lstrip()))
    return None if end is None else _line_after(lines, at, end - 1)


def _fenced(text: str, lines: Sequence[tuple[int, int]], at: int, fence: str) -> int:
    """A fence that is never closed runs to the end."""
    for later in range(at + 1, len(lines)):
        line = text[lines[later][0] : lines[later][1]].strip()
        if line.startswith(fence) and not line.strip(fence[0]):
            return later + 1
    return len(lines)


def _line_after(lines: Sequence[tuple[int, int]], at: int, offset: int) -> int:
    while at < len(lines) and lines[at][0] <= offset:
        at += 1
    return at


def _table(text: str, lines: Sequence[tuple[int, int]], at: int) -> tuple[list[Span], int]:
    last = at
    while last < len(lines) and _TABLE.match(text[lines[last][0] : lines[last][1]]):
        last += 1
    ruled = last > at + 1 and _RULE.match(text[lines[at + 1][0] : lines[at + 1][1]]) is not None
    body = at + 2 if ruled else at + 1
    head = Span(lines[at][0], lines[body - 1][1], "head" if body < last else "row")
    return [head, *(Span(*lines[row], "row") for row in range(body, last))], last


def _paragraph_end(text: str, lines: Sequence[tuple[int, int]], at: int) -> int:
    """The number of the line after a paragraph: before a blank line, or before what begins something else."""
    last = at + 1
    while last < len(lines):
        line = text[lines[last][0] : lines[last][1]]
        if not line.strip() or any(pattern.match(line) for pattern in _BEGINS) or _short(text, lines, last - 1, last):
            break
        # Within a sentence, a reference or a word and a colon may stand first on a line.
        ended = _ENDED.search(text[lines[last - 1][0] : lines[last - 1][1]])
        if ended and (_REFERENCE.match(line) or _NAMED.match(line)):
            break
        last += 1
    return last


def _short(text: str, lines: Sequence[tuple[int, int]], at: int, following: int) -> bool:
    """Did its author end this line, before there was no more room on it?"""
    width, more = (lines[one][1] - lines[one][0] for one in (at, following))
    return width < _WRAPPED * more or (width < _NARROW and more < _NARROW)


def _headline(text: str, lines: Sequence[tuple[int, int]], at: int) -> bool:
    """A short line that stands alone and ends with no mark; of the last line nothing follows."""
    start, end = lines[at]
    line = text[start:end]
    alone = at + 1 < len(lines) and not text[lines[at + 1][0] : lines[at + 1][1]].strip()
    return alone and len(line) <= _HEADLINE and not _ENDED.search(line) and _FOLLOWS.search(text, end) is not None


def _above_another(text: str, lines: Sequence[tuple[int, int]], at: int) -> bool:
    """Is the next line that is not blank a headline as well?"""
    while at < len(lines) and not text[lines[at][0] : lines[at][1]].strip():
        at += 1
    if at == len(lines) or any(
        pattern.match(text, *lines[at]) for pattern in (*_BEGINS, _NAMED, _INDENTED, _OPENS_JSON)
    ):
        return False
    return _headline(text, lines, at)


def _pieces(text: str, span: Span) -> Iterator[tuple[int, int]]:
    """Prose and long items in sentences; anything else as a whole."""
    if span.kind == "prose" or (span.kind == "item" and span.end - span.start > _LONG_ITEM):
        indent = len(text[span.start : span.end]) - len(text[span.start : span.end].lstrip())
        for start, end in sentences(text[span.start : span.end]):
            yield span.start + (0 if start == indent else start), span.start + end
    else:
        yield span.start, span.start + len(text[span.start : span.end].rstrip())
