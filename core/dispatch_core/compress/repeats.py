"""Passages that a context holds twice: retrieved chunks that are the same or overlap. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dispatch_core.compress.units import Span, spans

_BREAK = re.compile(r"\n[^\S\n]*\n\s*")
_OVERLAP, _ELSEWHERE = 80, 240
"""Characters from which a passage that follows itself is left out, and one that stands elsewhere is referred to."""

_OPENING = 40
_MARK = "[as above: “{}…”]"


def without_repeats(text: str) -> tuple[str, tuple[str, ...]]:
    """The text, and what was left out of it.

    A passage that follows itself, as overlapping chunks do, is left out. One that stands further above may belong to
    something else here, so its place keeps a mark with its first words. Code stays.
    """
    pieces = _paragraphs(text)
    first: dict[str, int] = {}
    kept: list[str] = []
    dropped: list[str] = []
    at = 0
    while at < len(pieces):
        length = _run(pieces, first, at)
        passage = "".join(body + gap for body, gap, _ in pieces[at : at + length]) if length else ""
        gap = pieces[at + length - 1][1] if length else ""
        size = len(passage.strip())
        follows = length and first[pieces[at][0]] + length == at
        if length and size >= (_OVERLAP if follows else _ELSEWHERE):
            dropped.append(passage.strip())
            kept += [] if follows else [_mark(passage), gap]
            at += length
            continue
        body, gap, code = pieces[at]
        if not code:
            first.setdefault(body, at)
        kept += [body, gap]
        at += 1
    return "".join(kept), tuple(dropped)


def _run(pieces: Sequence[tuple[str, str, bool]], first: dict[str, int], at: int) -> int:
    """How many paragraphs from here on are those of an earlier place, in the same order."""
    earlier = first.get(pieces[at][0])
    if earlier is None or pieces[at][2]:
        return 0
    length = 0
    while (
        at + length < len(pieces)
        and earlier + length < at
        and not pieces[at + length][2]
        and pieces[at + length][0] == pieces[earlier + length][0]
    ):
        length += 1
    return length


def _paragraphs(text: str) -> list[tuple[str, str, bool]]:
    """Each paragraph with the white space after it, and whether it is code; joined they are the text."""
    cuts: list[tuple[int, int, bool]] = []
    for start, end, code in _stretches(text, list(spans(text))):
        at = start
        while not code and (found := _BREAK.search(text, at, end)) is not None:
            cuts.append((at, found.start(), False))
            at = found.end()
        cuts.append((at, end, code))
    pieces = []
    for number, (start, end, code) in enumerate(cuts):
        following = cuts[number + 1][0] if number + 1 < len(cuts) else len(text)
        pieces.append((text[(start if number else 0) : end], text[end:following], code))
    return pieces or [(text, "", True)]


def _stretches(text: str, found: Sequence[Span]) -> list[tuple[int, int, bool]]:
    """Code by itself, all between two pieces of it together."""
    stretches: list[tuple[int, int, bool]] = []
    for span in found:
        code = span.kind in ("code", "json")
        if not code and stretches and not stretches[-1][2]:
            stretches[-1] = (stretches[-1][0], span.end, False)
        else:
            stretches.append((span.start, span.end, code))
    return stretches


def _mark(passage: str) -> str:
    words = " ".join(passage.split())[: _OPENING + 1]
    return _MARK.format(words.rsplit(" ", 1)[0] if " " in words else words[:_OPENING])
