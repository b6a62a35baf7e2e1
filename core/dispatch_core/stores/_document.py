"""An entry as names, numbers and one text, for databases that keep no bytes and read filters from a string."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable

from dispatch_core.errors import StoreError
from dispatch_core.stores._codec import decoded, encoded
from dispatch_core.types import Entry, Usage

NEVER = 1e300
"""The instant at which an entry expires that does not: these databases compare numbers, not nothing."""

_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,128}")


def name(text: str) -> str:
    """An id, scope or namespace as at most 129 characters that no filter language reads as anything else.

    The cache's own are digests, which stay as they are.
    """
    return text if _PLAIN.fullmatch(text) else "~" + hashlib.blake2b(encoded(text), digest_size=16).hexdigest()


def tag_numbers(tags: Iterable[str]) -> list[int]:
    """Tags as 63-bit digests: of any length, and safe to write into a filter."""
    digests = (hashlib.blake2b(encoded(tag), digest_size=8).digest() for tag in tags)
    return sorted({int.from_bytes(digest, "big") >> 1 for digest in digests})


def end(expires: float | None) -> float:
    return NEVER if expires is None else expires


def body(entry: Entry) -> str:
    """All of the entry but its end, in ASCII."""
    facts = {
        "id": entry.id,
        "namespace": entry.namespace,
        "scope": entry.scope,
        "text": entry.text,
        "usage": [entry.usage.input_tokens, entry.usage.output_tokens],
        "created": entry.created,
        "stale": entry.stale,
        "tags": entry.tags,
        "tombstone": entry.tombstone,
    }
    # Escaped to ASCII, two lone surrogates would come back as the one character they are halves of.
    head = encoded(json.dumps(facts, ensure_ascii=False, separators=(",", ":")))
    return base64.b64encode(len(head).to_bytes(4, "big") + head + entry.payload).decode("ascii")


def entry(body: str, expires: float) -> Entry:
    """The entry of a body; raises `StoreError` for one that another program wrote."""
    try:
        raw = base64.b64decode(body, validate=True)
        start = 4 + int.from_bytes(raw[:4], "big")
        facts = json.loads(decoded(raw[4:start]))
        usage, tags = Usage(*facts.pop("usage")), tuple(facts.pop("tags"))
        ends = None if expires >= NEVER else expires
        return Entry(**facts, payload=raw[start:], usage=usage, tags=tags, expires=ends)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError("a stored entry cannot be read: another program wrote to the cache's collection") from error
