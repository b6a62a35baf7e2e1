"""Texts and tags as bytes, for stores that keep bytes. Every text survives, also one with lone surrogates."""

from __future__ import annotations

import json
from collections.abc import Iterable


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def encoded_tags(tags: Iterable[str]) -> bytes:
    # Escaped to ASCII, two lone surrogates would come back as the one character they are halves of.
    return encoded(json.dumps(list(tags), ensure_ascii=False))


def decoded_tags(tags: bytes | None) -> tuple[str, ...]:
    """Entries that were written before there were tags have none."""
    return tuple(json.loads(decoded(tags))) if tags else ()
