"""Passages that a context holds twice: retrieved chunks that are the same or overlap. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from dispatch_core.compress.units import Span, spans

_BREAK = re.compile(r"\n[^\S\n]*\n\s*")
_OVERLAP, _ELSEWHERE = 80, 240
"""Characters from which a passage that follows itself is left out, and one that stands elsewhere is referred to."""

_OPENING = 40
_MARK = "[as above: “{}…”]"
_PASSES = 8

Piece: TypeAlias = tuple[str, str, bool]
"""A paragraph, the white space after it, and whether it is code."""


def without_repeats(text: str) -> tuple[str, tuple[str, ...]]:
    """The text, and what was left out of it.

    A passage that follows itself, as overlapping chunks do, is left out. One that stands further above may belong to
    something else here, so its place keeps a mark with its first words. Code stays.
    """
    dropped: list[str] = []
    for _ in range(_PASSES):
        # What was left out may have stood between two halves of another repetition.
        text, gone = _once(text)
        if not gone:
            break
        dropped += gone
    return text, tuple(dropped)


def _once(text: str) -> tuple[str, list[str]]:
    pieces = _paragraphs(text)
    first: dict[str, int] = {}
    kept: list[Piece] = []
    dropped: list[str] = []
    at = 0
    while at < len(pieces):
        earlier = first.get(pieces[at][0])
        length = 0 if earlier is None else _run(pieces, at, kept, earlier)
        passage = "".join(body + gap for body, gap, _ in pieces[at : at + length])
        size = len(passage.strip())
        follows = earlier is not None and earlier + length == len(kept)
        if length and size >= (_OVERLAP if follows else _ELSEWHERE):
            dropped.append(passage.strip())
            if not follows:
                kept.append((_mark(passage), pieces[at + length - 1][1], True))
            at += length
            continue
        if not pieces[at][2]:
            first.setdefault(pieces[at][0], len(kept))
        kept.append(pieces[at])
        at += 1
    return "".join(body + gap for body, gap, _ in kept), dropped


def _run(pieces: Sequence[Piece], at: int, kept: Sequence[Piece], earlier: int) -> int:
    """How many paragraphs from here on are those that were kept from an earlier place on, in the same order."""
    length = 0
    while at + length < len(pieces) and earlier + length < len(kept):
        body, _, code = pieces[at + length]
        if code or body != kept[earlier + length][0]:
            break
        length += 1
    return length


def _paragraphs(text: str) -> list[Piece]:
    """The pieces of a text; joined they are it."""
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
