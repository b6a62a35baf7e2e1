"""An entry as one string value, which one GET reads.

Numbers of a fixed size come first, so that a script can move the expiry in place; then what a mirror and a clearance
need (namespace, tags, scope, vector), so that they read the beginning alone; text and payload come last. The first
two bytes are the version: a row of another one is no entry.
"""

from __future__ import annotations

from math import isnan, nan
from struct import Struct, error, pack
from typing import NamedTuple

import numpy as np

from dispatch_core.stores._codec import decoded, decoded_tags, encoded, encoded_tags
from dispatch_core.types import Entry, Usage, Vector

_VERSION = b"D1"
# version, expires, created, stale, input and output tokens, tombstone; lengths of scope, vector and text, then of
# namespace and tags
_HEAD = Struct("<2sdddqq?HIIHI")
MARKS_AT = _HEAD.size - 6
"""Where namespace and tags begin, with their lengths: who compares these bytes compares both."""

_ROOM = 4 << 20
"""Bytes that rows which were read a moment ago may take."""

USUAL_HEAD = 4096
"""Bytes that hold the head of most entries: 900 dimensions and some tags."""


class Head(NamedTuple):
    """The beginning of a row. ``marks`` are its namespace and tags as they lie there; ``vector`` may be None."""

    expires: float | None
    namespace: str
    tags: tuple[str, ...]
    marks: bytes
    scope: str
    vector: Vector | None


def row(entry: Entry, vector: Vector | None) -> bytes:
    namespace, scope, text = encoded(entry.namespace), encoded(entry.scope), encoded(entry.text)
    tags = encoded_tags(entry.tags) if entry.tags else b""
    raw = b"" if vector is None else np.asarray(vector, dtype="<f4").tobytes()
    head = _HEAD.pack(
        _VERSION,
        *(_instant(entry.expires), _instant(entry.created), _instant(entry.stale)),
        *(entry.usage.input_tokens, entry.usage.output_tokens, entry.tombstone),
        *(len(scope), len(raw), len(text), len(namespace), len(tags)),
    )
    return b"".join((head, namespace, tags, scope, raw, text, entry.payload))


def entry(id: str, row: bytes | None) -> Entry | None:
    """None for what is not there, or is no row of this version."""
    if row is None or row[:2] != _VERSION:
        return None
    try:
        numbers = _HEAD.unpack_from(row)
        _, expires, created, stale, input_tokens, output_tokens, tombstone = numbers[:7]
        scope_size, vector_size, text_size, namespace_size, tags_size = numbers[7:]
        tags_at = _HEAD.size + namespace_size
        scope_at = tags_at + tags_size
        vector_at = scope_at + scope_size
        text_at = vector_at + vector_size
        payload_at = text_at + text_size
        if payload_at > len(row):
            return None
        return Entry(
            id,
            decoded(row[_HEAD.size : tags_at]),
            decoded(row[scope_at:vector_at]),
            decoded(row[text_at:payload_at]),
            row[payload_at:],
            Usage(input_tokens, output_tokens),
            created,
            None if isnan(expires) else expires,
            None if isnan(stale) else stale,
            decoded_tags(row[tags_at:scope_at]) if tags_size else (),
            tombstone,
        )
    except (error, ValueError):
        return None


class Recent:
    """Entries that were read a moment ago, by id.

    What is asked for is often asked for again, and to see that a row is still the same takes a twentieth of the time
    of reading it. Thread-safe; all is forgotten when it takes more than a few megabytes.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, Entry]] = {}
        self._room = _ROOM

    def fresh(self, id: str, row: bytes | None, now: float) -> Entry | None:
        """The entry of a row that was just fetched; None for what is none, or has expired by then."""
        kept = self._kept.get(id)
        if kept is not None and kept[0] == row:
            found: Entry | None = kept[1]
        else:
            found = entry(id, row)
            if found is not None and row is not None:
                self._keep(id, row, found)
        return found if found is not None and found.fresh(now) else None

    def _keep(self, id: str, row: bytes, found: Entry) -> None:
        # Its text and payload are copies.
        self._room -= 2 * len(row)
        if self._room < 0:
            self._kept.clear()
            self._room = _ROOM - 2 * len(row)
        if self._room >= 0:
            self._kept[id] = row, found


def head(row: bytes | None) -> Head | None:
    """None for what is not there, or is no row of this version. The row may be cut off after `head_size` bytes."""
    size = head_size(row)
    if row is None or size is None or len(row) < size:
        return None
    _, expires, *_, scope_size, vector_size, _, namespace_size, tags_size = _HEAD.unpack_from(row)
    tags_at = _HEAD.size + namespace_size
    scope_at = tags_at + tags_size
    vector_at = scope_at + scope_size
    try:
        return Head(
            None if isnan(expires) else expires,
            decoded(row[_HEAD.size : tags_at]),
            decoded_tags(row[tags_at:scope_at]),
            row[MARKS_AT:scope_at],
            decoded(row[scope_at:vector_at]),
            # A copy: a view would keep the whole row alive.
            np.frombuffer(row[vector_at : vector_at + vector_size], dtype="<f4") if vector_size else None,
        )
    except ValueError:
        return None


def head_size(row: bytes | None) -> int | None:
    """How many bytes of the row `head` needs; None for no row of this version."""
    if row is None or row[:2] != _VERSION or len(row) < _HEAD.size:
        return None
    *_, scope_size, vector_size, _, namespace_size, tags_size = _HEAD.unpack_from(row)
    return int(_HEAD.size + namespace_size + tags_size + scope_size + vector_size)


def ends(expires: float | None) -> bytes:
    """The expiry as it lies in a row."""
    return pack("<d", _instant(expires))


def _instant(seconds: float | None) -> float:
    return nan if seconds is None else seconds
