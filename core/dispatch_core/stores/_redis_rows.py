"""How an entry lies in Redis: a hash, its fields as bytes, its vector as little-endian float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dispatch_core.stores._codec import decoded, decoded_tags, encoded, encoded_tags
from dispatch_core.types import Entry, Usage, Vector


def fields(entry: Entry, vector: Vector | None) -> list[Any]:
    """Names and values in turn."""
    return [
        *("namespace", entry.namespace),
        *("scope", entry.scope),
        *("text", encoded(entry.text)),
        *("payload", entry.payload),
        *("input_tokens", entry.usage.input_tokens),
        *("output_tokens", entry.usage.output_tokens),
        *("created", repr(entry.created)),
        *("expires", instant(entry.expires)),
        *("stale", instant(entry.stale)),
        *("tags", encoded_tags(entry.tags) if entry.tags else b""),
        *("tombstone", b"1" if entry.tombstone else b""),
        *("vector", b"" if vector is None else np.asarray(vector, dtype="<f4").tobytes()),
    ]


def entry(id: str, row: dict[bytes, bytes]) -> Entry:
    """Also of a row that was written before there were ``stale``, ``tags`` and ``tombstone``."""
    return Entry(
        id=id,
        namespace=row[b"namespace"].decode(),
        scope=row[b"scope"].decode(),
        text=decoded(row[b"text"]),
        payload=row[b"payload"],
        usage=Usage(int(row[b"input_tokens"]), int(row[b"output_tokens"])),
        created=float(row[b"created"]),
        expires=instant_of(row[b"expires"]),
        stale=instant_of(row.get(b"stale")),
        tags=decoded_tags(row.get(b"tags")),
        tombstone=row.get(b"tombstone") == b"1",
    )


def vector_of(field: bytes | None) -> Vector | None:
    return np.frombuffer(field, dtype="<f4") if field else None


def instant(seconds: float | None) -> str:
    return "" if seconds is None else repr(float(seconds))


def instant_of(field: bytes | None) -> float | None:
    return float(field) if field else None


def milliseconds(expires: float | None) -> int:
    """For PEXPIREAT; 0 is never."""
    return 0 if expires is None else max(1, math.ceil(expires * 1000))


def as_map(row: Any) -> dict[bytes, bytes]:
    """A hash reply: a dict from most clients, a flat list from a raw one."""
    return row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))


def number(line: tuple[bytes, Any]) -> int:
    """The sequence number of a line of the journal."""
    return int(line[0].split(b"-")[0])


def literal(text: str) -> str:
    """Escape what a MATCH pattern would read as a wildcard."""
    return "".join("\\" + char if char in "*?[]\\^-" else char for char in text)
