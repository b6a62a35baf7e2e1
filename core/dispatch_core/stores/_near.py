"""A process's mirror of the vectors that lie in Redis, and how it follows the journal of their changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from dispatch_core._flow import Flow, arun, pause, run, step
from dispatch_core.errors import DimensionMismatch, StoreError
from dispatch_core.stores import _packed as packed
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._journal import (
    Line,
    Position,
    Written,
    changed_since,
    continues,
    lines_of,
    number_of,
    place,
    summed_up,
)
from dispatch_core.stores._lines import copied
from dispatch_core.stores._reads import Reads, Reply
from dispatch_core.stores._redis import Command, Connections
from dispatch_core.types import Vector

_HEADS = files("dispatch_core.stores").joinpath("heads.lua").read_text()
_NEWS, _PAGE = 1_000, 500
_POLL, _POLLS = 0.005, 200
_UNTOLD = 64
"""Own writes of which the journal was not read yet, from which on it is."""
_SCOPES = 4096
"""Scopes of which it is remembered how long their vectors are."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Names in Redis. All of one prefix share one hash tag, so that a cluster keeps them on one node."""

    entries: str
    leases: str
    sequence: str
    journal: str

    @classmethod
    def of(cls, prefix: str) -> Keys:
        tag = "{" + prefix + "}"
        return cls(f"{tag}:n:", f"{tag}:l:", f"{tag}:nseq", f"{tag}:nlog")


class Mirror:
    """Callers in many threads and tasks move it forward together.

    What one has read of the journal is applied under the lock, and only as far as nobody else was there before. Of
    tasks that one reply answers, one does it for all. What this process wrote itself is not read again.
    """

    def __init__(self, connections: Connections, keys: Keys) -> None:
        self._redis = connections
        self._keys = keys
        self.reads = Reads(connections, self._news)
        self._lock = threading.Lock()
        self._loading = False
        self._own: dict[bytes, Written] = {}
        self._lengths: dict[str, int] = {}
        self.index = VectorIndex()
        self._position: Position | None = None

    def look(
        self, vector: Vector, scope: str, limit: int, now: float
    ) -> Flow[tuple[Position | None, list[tuple[str, float]], DimensionMismatch | None]]:
        """Search as things are known here, and say as of where; a vector of another length finds nothing."""
        with self._lock:
            position, index = self._position, self.index
        try:
            found = yield from step(index.search, index.asearch, vector, scope=scope, limit=limit, now=now)
        except DimensionMismatch as mismatch:
            return position, [], mismatch
        return position, found, None

    def ask(self, ids: Sequence[str]) -> Flow[Reply]:
        """One round trip: these entries, and what is new."""
        wanted = [self._keys.sequence, *(self._keys.entries + id for id in ids)]
        return (yield from self.reads.read(wanted, tail=True))

    def nothing_since(self, position: Position | None, reply: Reply) -> bool:
        """Whether what was known at the position was all there was to know when the reply was made."""
        return reply.mark == position and not reply.tail and self._end(reply) == position

    def follow(self, reply: Reply) -> Flow[tuple[Position, dict[str, bytes | None]]]:
        """Bring the mirror at least to where the reply was made.

        Returns a position, and rows by id that were read for it: what the mirror finds there is so, no more if it
        has gone on.
        """
        if self.nothing_since(reply.mark, reply):
            return reply.mark, {}
        if reply.shared is None:
            return (yield from self._follow(reply))
        return (yield from step(self._follow_now, self._afollow, reply, reply.shared))

    def expect(self, scope: str, vector: Vector | None) -> Flow[None]:
        """What a put needs to know first; raises `DimensionMismatch` for a vector of a wrong length."""
        length = None if vector is None else len(vector)
        # Who only writes would otherwise remember all that came in between others' changes.
        if len(self._own) >= _UNTOLD or (vector is not None and self._lengths.get(scope) != length):
            yield from self.follow((yield from self.ask([])))
        if vector is not None:
            self.index.check(scope, vector)
            if len(self._lengths) >= _SCOPES:
                self._lengths.clear()
            self._lengths[scope] = len(vector)

    def _follow_now(self, reply: Reply, _: Any) -> tuple[Position, dict[str, bytes | None]]:
        return run(self._follow(reply))

    async def _afollow(
        self, reply: Reply, shared: list[asyncio.Task[Any]]
    ) -> tuple[Position, dict[str, bytes | None]]:
        """Once for all whom the reply answers; whoever gives up leaves the others what he began."""
        if not shared:
            shared.append(asyncio.create_task(arun(self._follow(reply))))
            shared[0].add_done_callback(_noticed)
        try:
            followed: tuple[Position, dict[str, bytes | None]] = await asyncio.shield(shared[0])
        except StoreError as error:
            raise copied(error) from error.__cause__
        return followed

    def _follow(self, reply: Reply) -> Flow[tuple[Position, dict[str, bytes | None]]]:
        while True:
            known, last, lines = reply.mark, self._end(reply), lines_of(reply.tail)
            if known is None or not continues(known, lines, last):
                if (yield from self._load(known, last)):
                    return last, {}
            else:
                read = (yield from self._apply(lines, known)) if lines else {}
                if len(lines) < _NEWS:
                    return (lines[-1].position if lines else last), read
            reply = yield from self.ask([])

    def still_so(self, reply: Reply, ids: Sequence[str], position: Position) -> dict[str, bytes | None]:
        """Those of the rows that are in the reply and were the same where the journal stood at the position."""
        last, lines = self._end(reply), lines_of(reply.tail)
        if position != (lines[-1].position if lines else last):
            return {}
        changed = changed_since(last, lines)
        return self.rows([id for id in ids if id not in changed], reply)

    def rows(self, ids: Iterable[str], reply: Reply) -> dict[str, bytes | None]:
        """Those of the rows that are in the reply, by id; others may have asked for more."""
        values, prefix = reply.values, self._keys.entries
        return {id: values[prefix + id] for id in ids if prefix + id in values}

    def forget(self, ids: Sequence[str], position: Position | None) -> None:
        """The server expired or evicted them without a word in the journal."""
        with self._lock:
            if self._position == position:
                for id in ids:
                    self.index.remove(id)

    def writing(self, name: bytes, id: str, scope: str, vector: Vector | None, expires: float | None) -> None:
        """A put begins, whose line in the journal will have the name. It ends with `wrote` or `failed`."""
        # A copy: the caller may use its vector for another as soon as the put is over.
        self._own[name] = Written(id, scope, None if vector is None else np.array(vector, np.float32), expires)

    def wrote(self, name: bytes, before: Position) -> None:
        """One's own write is known at once, if it came ``before`` all that is not known here."""
        with self._lock:
            position = self._position
            if position is not None and number_of(before) > number_of(position):
                # The journal will tell, after what came in between.
                return
            written = self._own.pop(name, None)
            if written is not None and before == position:
                _mirror(self.index, *written)
                self._position = place(number_of(before) + 1, name)

    def failed(self, name: bytes) -> None:
        """Whether it was written all the same, the journal tells."""
        self._own.pop(name, None)

    def touched(self, name: bytes, before: Position | None, id: str, expires: float | None) -> None:
        """``before`` is None of a touch that changed nothing."""
        with self._lock:
            if before is not None and before == self._position:
                self.index.touch(id, expires)
                self._position = place(number_of(before) + 1, name)

    def scan(self, cursor: Any) -> Command:
        return ("SCAN", cursor, "MATCH", rows.literal(self._keys.entries) + "*", "COUNT", _PAGE)

    def ids(self, keys: Sequence[bytes]) -> list[str]:
        start = len(self._keys.entries.encode())
        return [key[start:].decode() for key in keys]

    def heads(self, ids: Sequence[str], *, then: Sequence[Command] = ()) -> Flow[tuple[list[Any], list[Any]]]:
        """The heads of entries (None for what is none), and the replies to commands that travel with the question."""
        asked = [self._heads(ids, packed.USUAL_HEAD)] if ids else []
        replies = (yield from self._redis.call(*asked, *then)) if asked or then else []
        raw = list(replies[0]) if asked else []
        long = [place for place, row in enumerate(raw) if (packed.head_size(row) or 0) > len(row)]
        if long:
            most = max(packed.head_size(raw[place]) or 0 for place in long)
            [more] = yield from self._redis.call(self._heads([ids[place] for place in long], most))
            for place, row in zip(long, more, strict=True):
                raw[place] = row
        return [packed.head(row) for row in raw], replies[len(asked) :]

    def _heads(self, ids: Sequence[str], size: int) -> Command:
        return ("EVAL", _HEADS, len(ids), *(self._keys.entries + id for id in ids), size)

    def _news(self) -> tuple[Position | None, Command]:
        with self._lock:
            position = self._position
        # Numbers are n-0, so that n-1 is what comes after n.
        after = b"%d-1" % number_of(position or b"")
        return position, ("XRANGE", self._keys.journal, after, "+", "COUNT", _NEWS)

    def _end(self, reply: Reply) -> Position:
        return reply.values[self._keys.sequence] or b""

    def _apply(self, lines: Sequence[Line], known: Position) -> Flow[dict[str, bytes | None]]:
        """Lines that follow on what was known."""
        along = {line.number: line.position for line in lines} | {number_of(known): known}
        seen = self._seen(along)
        if seen is None:
            return {}
        news = summed_up(lines, seen, self._own)
        read: dict[str, bytes | None] = {}
        if news.foreign:
            reply = yield from self.reads.read([self._keys.entries + id for id in sorted(news.foreign)])
            read = self.rows(news.foreign, reply)
        with self._lock:
            # Others may have read on meanwhile: what they know is newer than these lines, or of another server.
            seen = self._seen(along)
            if seen is None:
                return read
            for id, row in read.items():
                if news.last[id] > seen:
                    head = packed.head(row)
                    _mirror(self.index, id, *((head.scope, head.vector, head.expires) if head else ("", None, None)))
            for id, written in news.own.items():
                if news.last[id] > seen:
                    _mirror(self.index, *written)
            for id, expires in news.touched.items():
                if news.last[id] > seen and id not in news.foreign:
                    self.index.touch(id, expires)
            self._position = lines[-1].position
            for name in news.names:
                self._own.pop(name, None)
        return read

    def _seen(self, along: Mapping[int, Position]) -> int | None:
        """The number of the last change that is known; None if the mirror stands at none of these positions."""
        position = self._position or b""
        number = number_of(position)
        return number if along.get(number) == position else None

    def _load(self, before: Position | None, after: Position) -> Flow[bool]:
        """Read all anew; False if somebody else moved the mirror meanwhile, perhaps further."""
        polls = 0
        # A hundred askers after a restart are one load. Who loads may never come back: then, after a second, another.
        while self._loading and polls < _POLLS:
            polls += 1
            yield from pause(_POLL)
        if self._position != before:
            return False
        self._loading = True
        try:
            index = VectorIndex()
            ids: list[str] = []
            cursor: Any = b"0"
            while cursor is not None or ids:
                # The next page of names travels with the question for the heads of this one.
                heads, scanned = yield from self.heads(ids, then=() if cursor is None else (self.scan(cursor),))
                for id, head in zip(ids, heads, strict=True):
                    if head is not None:
                        _mirror(index, id, head.scope, head.vector, head.expires)
                ids = []
                if scanned:
                    cursor, keys = scanned[0]
                    ids = self.ids(keys)
                    cursor = cursor if int(cursor) else None
            with self._lock:
                if self._position != before:
                    return False
                self.index, self._position = index, after
                self._own.clear()
                self._lengths.clear()
                return True
        finally:
            self._loading = False


def _noticed(task: asyncio.Task[Any]) -> None:
    """All who asked for it may have given up: then nobody is told of its failure."""
    if not task.cancelled():
        task.exception()


def _mirror(index: VectorIndex, id: str, scope: str, vector: Vector | None, expires: float | None) -> None:
    if vector is None:
        index.remove(id)
        return
    try:
        index.put(id, scope, vector, expires)
    except DimensionMismatch:
        # Two processes with two encoders of one name wrote it at once. Not to know it is better than to stand still.
        index.remove(id)
