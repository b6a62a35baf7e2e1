"""Server-sent events in a stream of bytes, whatever the pieces in which they come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its bytes with the blank line that ends it, and its data."""

    raw: bytes
    data: bytes

    def json(self) -> Any:
        """The data's JSON; None if it is none."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            return None


class Splitter:
    """Cuts bytes into events. An event longer than 16 MB raises ValueError."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        self._rest += data
        start = 0
        for end in _END.finditer(self._rest):
            raw = self._rest[start : end.end()]
            start = end.end()
            yield Event(raw, _data(raw))
        self._rest = self._rest[start:]
        if len(self._rest) > _LONGEST:
            raise ValueError("an event without an end")


def event(data: bytes, name: str | None = None) -> bytes:
    """An event with these data, which hold no line end."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"


def _data(raw: bytes) -> bytes:
    if raw.startswith(b"data: ") and raw.count(b"\n") == 2 and b"\r" not in raw:
        return raw[6:-2]
    lines = (line.rstrip(b"\r") for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
