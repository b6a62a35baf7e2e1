"""White space that says nothing. Pure.

What may say something stays: the indentation of a line, runs in lines that stand in columns, hold code or quote
them, tabs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_RUN = re.compile(r"(?<=\S) {2,}(?=\S)")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n){2,}")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|(?<!\w)'[^']*'(?!\w)|(?<!\w)‘[^‘’]*’(?!\w)")
_CELLS = re.compile(r"[ \t]*\|")
_RULE = re.compile(r"[\s|:\-+=]+$")


def narrowed(text: str) -> str:
    """Without trailing spaces, with one blank line where there were more, and one space where it divides words."""
    while (shorter := _once(text)) != text:
        text = shorter
    return text


def _once(text: str) -> str:
    lines = [line.rstrip(" \t\r") for line in text.split("\n")]
    edges = [_edges(line) for line in lines]
    kept = [
        line if not edges[at] or _aligned(lines, edges, at) else _RUN.sub(" ", line) for at, line in enumerate(lines)
    ]
    if text[-1:] in (" ", "\t"):
        # The line may go on behind the text.
        kept[-1] += " "
    return _BLANK_LINES.sub("\n\n", "\n".join(kept))


def _edges(line: str) -> frozenset[int]:
    """Where words begin and end that a run of spaces divides from the one before."""
    edges: set[int] = set()
    for run in _RUN.finditer(line):
        following = line.find(" ", run.end())
        edges.update((run.end(), -(following if following >= 0 else len(line))))
    return frozenset(edges)


def _aligned(lines: Sequence[str], edges: Sequence[frozenset[int]], at: int) -> bool:
    """Do the words of this line stand in columns, is it code, or does it quote its spaces?"""
    line = lines[at]
    if _CELLS.match(line):
        # In a table of Markdown the bars divide the cells.
        return bool(_RULE.match(line))
    if "\t" in line or "`" in line or line[:1] == " ":
        return True
    if any("  " in quoted.group() for quoted in _QUOTED.finditer(line)):
        return True
    beside = [edges[near] for near in (at - 1, at + 1) if 0 <= near < len(lines)]
    return any(edges[at] & near for near in beside)
