"""The journal of changes in Redis: where one is in it, and what its lines come to.

A position is what the sequence held when the journal stood there: the number of the last change, a blank, and the
change's name, which no other change has. A server that came back with older data (a restored snapshot, a replica that
took over) numbers its next changes as others were numbered before, but each line names the change before it: who
finds there another than he knows has lost the thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

from dispatch_core.stores import _redis_rows as rows
from dispatch_core.types import Vector

Position: TypeAlias = bytes
"""Empty before the first change. Of sequences that were written before changes had names, a number alone."""


class Written(NamedTuple):
    """What a put of this process wrote, as far as a mirror needs it."""

    id: str
    scope: str
    vector: Vector | None
    expires: float | None


class Line(NamedTuple):
    """One change: of which entry, what it was, and its place in the journal."""

    number: int
    id: str
    op: bytes
    name: bytes
    after: bytes
    expires: float | None

    @property
    def position(self) -> Position:
        return place(self.number, self.name)


class News(NamedTuple):
    """What lines come to: by id the ``last`` number, the expiry of a touch after the last write, that write if it was
    one's ``own``; ``foreign`` are the ids to read; ``names`` are those of one's own writes."""

    last: dict[str, int]
    touched: dict[str, float | None]
    own: dict[str, Written]
    foreign: set[str]
    names: list[bytes]


def place(number: int, name: bytes) -> Position:
    return b"%d %b" % (number, name)


def number_of(position: Position) -> int:
    return int(position.partition(b" ")[0] or 0)


def lines_of(tail: Sequence[tuple[bytes, Any]] | None) -> list[Line]:
    """The lines of a reply, oldest first."""
    return [_line(rows.number(raw), rows.as_map(raw[1])) for raw in tail or ()]


def continues(known: Position, lines: Sequence[Line], sequence: Position) -> bool:
    """Whether these lines are what followed on the position, none missing; ``sequence`` was read before them."""
    if not lines:
        return sequence == known
    number, _, name = known.partition(b" ")
    return lines[0].number == int(number or 0) + 1 and lines[0].after == name


def changed_since(sequence: Position, lines: Sequence[Line]) -> set[str]:
    """The ids that were changed after the sequence was read."""
    number = number_of(sequence)
    return {line.id for line in takewhile(lambda line: line.number > number, reversed(lines))}


def summed_up(lines: Sequence[Line], after: int, mine: Mapping[bytes, Written]) -> News:
    """Of lines after a number; ``mine`` are one's own writes by name, as far as they are known."""
    news = News({}, {}, {}, set(), [])
    for line in reversed(lines):
        if line.number <= after:
            break
        written = mine.get(line.name)
        if written is not None:
            news.names.append(line.name)
        if line.id in news.own or line.id in news.foreign:
            continue
        news.last.setdefault(line.id, line.number)
        if line.op == b"touch":
            news.touched.setdefault(line.id, line.expires)
        elif written is not None:
            news.own[line.id] = written
        else:
            news.foreign.add(line.id)
    return news


def _line(number: int, change: dict[bytes, bytes]) -> Line:
    name, after = change.get(b"by", b""), change.get(b"after", b"")
    return Line(number, change[b"id"].decode(), change[b"op"], name, after, rows.instant_of(change.get(b"expires")))
