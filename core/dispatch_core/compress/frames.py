"""Where in a prompt the retrieved context stands, and where the question. Pure.

Frameworks put both into one message. A `Frame` is the template that did so, read backwards: its fixed words are
looked for, and what lies between them is the context or the question. Only what was told to be context, by a frame,
by tags or by the kind of a part, is ever shortened.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import Formatter
from typing import TypeAlias

from dispatch_core.errors import ConfigError
from dispatch_core.messages import Kind

Segment: TypeAlias = tuple[Kind, str]
"""A stretch of a text and what it is; the segments of a text are the text."""

_CONTEXT = frozenset({"context", "context_str", "context_msg", "documents", "docs", "summaries"})
_QUESTION = frozenset({"question", "query", "query_str", "input"})
_TAG = re.compile(r"[^\W\d][\w.:-]*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, init=False)
class Frame:
    """A prompt template of yours: ``Frame("Use this:\\n{context}\\n\\nQuestion: {question}")``.

    The field of the context is named context, context_str, context_msg, documents, docs or summaries, that of the
    question question, query, query_str or input; other fields match anything. Names of your own are given as
    ``context`` and ``question``. White space may differ; what stands before and after the template is neither. Raises
    `ConfigError` for a template without a context, with nothing around it, or with nothing between two fields.
    """

    template: str
    _kinds: tuple[Kind, ...]
    _literals: tuple[re.Pattern[str] | None, ...]

    def __init__(self, template: str, *, context: str | None = None, question: str | None = None) -> None:
        try:
            pieces = list(Formatter().parse(template.strip()))
        except (ValueError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"a frame is a template such as '{{context}} Question: {{question}}': {error}"
            ) from error
        kinds = tuple(_kind(name, context, question) for _, name, _, _ in pieces if name is not None)
        literals = [_pattern(literal) for literal, _, _, _ in pieces]
        literals += [None] * (len(kinds) + 1 - len(literals))
        if kinds.count("context") != 1:
            raise ConfigError(f"a frame has one field for the context, such as {{context}}: {template!r}")
        if not any(literals) or None in literals[1:-1]:
            raise ConfigError(f"a frame has words around its context and between its fields: {template!r}")
        object.__setattr__(self, "template", template)
        object.__setattr__(self, "_kinds", kinds)
        object.__setattr__(self, "_literals", tuple(literals))

    def segments(self, text: str) -> list[Segment] | None:
        """The text in its segments; None if it was not made of this template.

        The context is as long as can be: a document may hold the words of the template, too.
        """
        middle = self._kinds.index("context")
        left, at = list[tuple[int, int]](), 0
        for literal in self._literals[: middle + 1]:
            found = (at, at) if literal is None else _first(literal, text, at)
            if found is None:
                return None
            left.append(found)
            at = found[1]
        right, limit = list[tuple[int, int]](), len(text)
        for literal in reversed(self._literals[middle + 1 :]):
            found = (limit, limit) if literal is None else _last(literal, text, at, limit)
            if found is None:
                return None
            right.insert(0, found)
            limit = found[0]
        if not text[at:limit].strip():
            return None
        return _between(text, [*left, *right], self._kinds)


def frames_of(given: Sequence[Frame | str]) -> tuple[Frame, ...]:
    """Frames, of which each may be just a template. Raises `ConfigError`."""
    if isinstance(given, str):
        raise ConfigError("frames is a list of frames: put the template into one")
    for one in given:
        if not isinstance(one, Frame | str):
            raise ConfigError(f"a frame is a Frame or a template, got {type(one).__name__}")
    return tuple(one if isinstance(one, Frame) else Frame(one) for one in given)


def tags_of(given: Collection[str]) -> re.Pattern[str]:
    """What finds the opening tags of these names, which are its first group. Raises `ConfigError`."""
    if isinstance(given, str) or not all(isinstance(one, str) and _TAG.fullmatch(one) for one in given):
        raise ConfigError(f"tags are names such as 'context', without brackets, got {given!r}")
    if not given:
        return re.compile(r"(?!)")
    names = "|".join(re.escape(name) for name in sorted(given, key=len, reverse=True))
    return re.compile(rf"<({names})(?![\w.:-])[^<>]*>")


TAGS = ("context", "documents", "document")
"""The tags that are known."""

TAGGED = tags_of(TAGS)


def segments_of(text: str, frames: Sequence[Frame], tagged: re.Pattern[str] = TAGGED) -> list[Segment]:
    """The segments by the first frame that fits, else by tags (see `tags_of`)."""
    found = framed(text, frames)
    if found is not None:
        return found
    edges = [(0, 0), *_between_tags(text, tagged), (len(text), len(text))]
    segments: list[Segment] = []
    for (_, before), (start, end) in pairwise(edges):
        segments += [("text", text[before:start]), ("context", text[start:end])]
    return [segment for segment in segments if segment[1]]


def framed(text: str, frames: Sequence[Frame]) -> list[Segment] | None:
    """The segments by the first frame that fits."""
    return next((found for frame in frames if (found := frame.segments(text)) is not None), None)


def _between_tags(text: str, tagged: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where the text between two tags begins and ends. In time that grows with the text, whatever it holds."""
    unclosed: set[str] = set()
    at = 0
    while (opening := tagged.search(text, at)) is not None:
        at, closing = opening.end(), f"</{opening[1]}>"
        end = -1 if closing in unclosed else text.find(closing, at)
        if end < 0:
            # Nor is there one further on.
            unclosed.add(closing)
        else:
            yield at, end
            at = end + len(closing)


def _kind(name: str, context: str | None, question: str | None) -> Kind:
    if name == context or (context is None and name in _CONTEXT):
        return "context"
    if name == question or (question is None and name in _QUESTION):
        return "question"
    return "text"


def _pattern(literal: str) -> re.Pattern[str] | None:
    """The literal with any white space where it has some; None if it is empty."""
    if not literal:
        return None
    pieces, done = list[str](), 0
    for space in _SPACE.finditer(literal):
        pieces += [re.escape(literal[done : space.start()]), _space(space.group(), leads=space.start() == 0)]
        done = space.end()
    return re.compile("".join([*pieces, re.escape(literal[done:])]))


def _space(run: str, *, leads: bool) -> str:
    """A blank line stays one, for it may be all that divides two fields."""
    lines = min(run.count("\n"), 2)
    if not lines:
        return r"[^\S\n]+"
    # A pattern that begins with a line break is found fast; the spaces before it go to the field.
    return ("" if leads else r"[^\S\n]*") + r"\n[^\S\n]*" * lines


def _first(literal: re.Pattern[str], text: str, at: int) -> tuple[int, int] | None:
    found = literal.search(text, at)
    return None if found is None else found.span()


def _last(literal: re.Pattern[str], text: str, at: int, limit: int) -> tuple[int, int] | None:
    found = None
    for match in literal.finditer(text, at, limit):
        found = match.span()
    return found


def _between(text: str, literals: Sequence[tuple[int, int]], kinds: Sequence[Kind]) -> list[Segment]:
    """What lies between two literals is of the kind of their field; literals themselves are text."""
    segments: list[Segment] = [("text", text[: literals[0][1]])]
    for kind, (_, start), (end, after) in zip(kinds, literals, literals[1:], strict=False):
        segments += [(kind, text[start:end]), ("text", text[end:after])]
    segments.append(("text", text[literals[-1][1] :]))
    return [segment for segment in segments if segment[1]]
