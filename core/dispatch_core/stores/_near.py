"""A process's mirror of the vectors that lie in Redis, and how it follows the journal of their changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from dispatch_core._flow import Flow, arun, pause, run, step
from dispatch_core.errors import DimensionMismatch, StoreError
from dispatch_core.stores import _packed as packed
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._index import VectorIndex
from dispatch_core.stores._lines import copied
from dispatch_core.stores._reads import Reads, Reply
from dispatch_core.stores._redis import Command, Connections
from dispatch_core.types import Vector

_HEADS = files("dispatch_core.stores").joinpath("heads.lua").read_text()
_NEWS, _PAGE = 1_000, 500
_POLL, _POLLS = 0.005, 200

Position = tuple[bytes | None, int]
"""Where in the journal: its epoch and the last number seen."""


class _Written(NamedTuple):
    """What a put of this process wrote, as far as a mirror needs it."""

    id: str
    scope: str
    vector: Vector | None
    expires: float | None


class _Changes(NamedTuple):
    """What lines of the journal come to: by id the ``last`` number, the expiry of a touch after the last write,
    that write if it was one's ``own``; ``foreign`` are the ids to read; ``names`` are those of one's own writes."""

    last: dict[str, int]
    touched: dict[str, float | None]
    own: dict[str, _Written]
    foreign: set[str]
    names: list[bytes]


@dataclass(frozen=True, slots=True)
class Keys:
    """Names in Redis. All of one prefix share one hash tag, so that a cluster keeps them on one node."""

    entries: str
    leases: str
    sequence: str
    journal: str
    epoch: str

    @classmethod
    def of(cls, prefix: str) -> Keys:
        tag = "{" + prefix + "}"
        return cls(f"{tag}:n:", f"{tag}:l:", f"{tag}:nseq", f"{tag}:nlog", f"{tag}:nepoch")


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
        self._own: dict[bytes, _Written] = {}
        self.index = VectorIndex()
        self._position: Position = (None, -1)

    def look(
        self, vector: Vector, scope: str, limit: int, now: float
    ) -> Flow[tuple[Position, list[tuple[str, float]], DimensionMismatch | None]]:
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
        wanted = [self._keys.epoch, self._keys.sequence, *(self._keys.entries + id for id in ids)]
        return (yield from self.reads.read(wanted, tail=True))

    def nothing_since(self, position: Position, reply: Reply) -> bool:
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
            news = reply.tail
            (known, seen), (epoch, last) = reply.mark, self._end(reply)
            first = rows.number(news[0]) if news else None
            gap = first is not None and first != seen + 1
            lost = first is None and last != seen
            if seen < 0 or epoch != known or gap or lost:
                if (yield from self._load(reply.mark, (epoch, last))):
                    return (epoch, last), {}
            else:
                read = (yield from self._apply(news, epoch)) if news else {}
                if len(news) < _NEWS:
                    return (epoch, rows.number(news[-1]) if news else last), read
            reply = yield from self.ask([])

    def still_so(self, reply: Reply, ids: Sequence[str], position: Position) -> dict[str, bytes | None]:
        """Those of the rows that are in the reply and were the same where the journal stood at the position."""
        epoch, last = self._end(reply)
        news = reply.tail or ()
        if position != (epoch, rows.number(news[-1]) if news else last):
            return {}
        later = takewhile(lambda line: rows.number(line) > last, reversed(news))
        changed = {rows.as_map(line[1])[b"id"].decode() for line in later}
        return self.rows([id for id in ids if id not in changed], reply)

    def rows(self, ids: Iterable[str], reply: Reply) -> dict[str, bytes | None]:
        """Those of the rows that are in the reply, by id; others may have asked for more."""
        values, prefix = reply.values, self._keys.entries
        return {id: values[prefix + id] for id in ids if prefix + id in values}

    def forget(self, ids: Sequence[str], position: Position) -> None:
        """The server expired or evicted them without a word in the journal."""
        with self._lock:
            if self._position == position:
                for id in ids:
                    self.index.remove(id)

    def writing(self, name: bytes, id: str, scope: str, vector: Vector | None, expires: float | None) -> None:
        """A put begins, whose line in the journal will have the name. It ends with `wrote` or `failed`."""
        # A copy: the caller may use its vector for another as soon as the put is over.
        self._own[name] = _Written(id, scope, None if vector is None else np.array(vector, np.float32), expires)

    def wrote(self, name: bytes, number: int) -> None:
        """One's own write is known at once, unless others came before that are not."""
        with self._lock:
            seen = self._position[1]
            if number > seen + 1:
                return
            written = self._own.pop(name, None)
            if number == seen + 1 and written is not None:
                _mirror(self.index, *written)
                self._position = self._position[0], number

    def failed(self, name: bytes) -> None:
        """Whether it was written all the same, the journal tells."""
        self._own.pop(name, None)

    def touched(self, number: int, id: str, expires: float | None) -> None:
        with self._lock:
            if number > 0 and number == self._position[1] + 1:
                self.index.touch(id, expires)
                self._position = self._position[0], number

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

    def _news(self) -> tuple[Position, Command]:
        with self._lock:
            position = self._position
        # Numbers are n-0, so that n-1 is what comes after n.
        return position, ("XRANGE", self._keys.journal, f"{max(position[1], 0)}-1", "+", "COUNT", _NEWS)

    def _end(self, reply: Reply) -> Position:
        return reply.values[self._keys.epoch], int(reply.values[self._keys.sequence] or 0)

    def _apply(self, news: Sequence[tuple[bytes, Any]], epoch: bytes | None) -> Flow[dict[str, bytes | None]]:
        changes = self._changes(news, self._position[1])
        read: dict[str, bytes | None] = {}
        if changes.foreign:
            reply = yield from self.reads.read([self._keys.entries + id for id in sorted(changes.foreign)])
            read = self.rows(changes.foreign, reply)
        with self._lock:
            if epoch != self._position[0]:
                return read
            seen = self._position[1]
            # Others may have read on meanwhile: what they know is newer than these lines.
            for id, row in read.items():
                if changes.last[id] > seen:
                    head = packed.head(row)
                    _mirror(self.index, id, *((head.scope, head.vector, head.expires) if head else ("", None, None)))
            for id, written in changes.own.items():
                if changes.last[id] > seen:
                    _mirror(self.index, *written)
            for id, expires in changes.touched.items():
                if changes.last[id] > seen and id not in changes.foreign:
                    self.index.touch(id, expires)
            self._position = epoch, max(seen, rows.number(news[-1]))
            for name in changes.names:
                self._own.pop(name, None)
        return read

    def _changes(self, news: Sequence[tuple[bytes, Any]], seen: int) -> _Changes:
        changes = _Changes({}, {}, {}, set(), [])
        for line in reversed(news):
            number = rows.number(line)
            if number <= seen:
                break
            change = rows.as_map(line[1])
            id, op, name = change[b"id"].decode(), change[b"op"], change.get(b"by")
            if name in self._own:
                changes.names.append(name)
            if id in changes.own or id in changes.foreign:
                continue
            changes.last.setdefault(id, number)
            if op == b"touch":
                changes.touched.setdefault(id, rows.instant_of(change[b"expires"]))
            elif name is not None and (written := self._own.get(name)) is not None:
                changes.own[id] = written
            else:
                changes.foreign.add(id)
        return changes

    def _load(self, before: Position, after: Position) -> Flow[bool]:
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
