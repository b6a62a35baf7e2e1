"""What is said to RediSearch and how its replies are read, of both protocols. Pure: no connection.

Written for RediSearch 2.6 to 8: nothing here needs more than 2.6.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._codec import encoded
from dispatch_core.types import Entry, Vector

LAYOUT = 1
"""Part of an index's name: one with other fields is another index, built beside it from the same entries."""

DISTANCE = "distance"
_ENTRY = ("namespace", "scope", "text", "payload", "input_tokens", "output_tokens", "created", "expires", "stale",
          "tags", "tombstone")  # fmt: skip
# None of these is a NUMERIC field: of those the server would return what it computes with, to twelve digits.
_EMPTY = dict.fromkeys((b"text", b"payload", b"expires", b"stale", b"tags", b"tombstone"), b"")
_MISSING = re.compile(r"no such index|unknown index|index not found|index .* not found", re.IGNORECASE)
_ABSENT = re.compile(r"unknown command", re.IGNORECASE)

Hit = tuple[bytes, dict[bytes, Any]]
"""The key of an entry and its fields."""


def create(index: str, prefix: str, dims: int) -> tuple[Any, ...]:
    """Scopes, namespaces and labels are whole, case and all. An entry without a vector is indexed for the rest."""
    tag = ("TAG", "SEPARATOR", ",", "CASESENSITIVE")
    vector = ("VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", dims, "DISTANCE_METRIC", "COSINE")
    schema = ("namespace", *tag, "scope", *tag, "labels", *tag, "ends", "NUMERIC", vector_field(dims), *vector)
    return ("FT.CREATE", index, "ON", "HASH", "PREFIX", 1, prefix, "SCHEMA", *schema)


def nearest(
    index: str, vector: Vector, *, scope: str, limit: int, now: float | None, ef: int, timeout: int
) -> tuple[Any, ...]:
    """The ``limit`` nearest entries of a scope that are fresh by ``now``, with all they carry; ``timeout`` in ms."""
    fresh = "" if now is None else f" @ends:[({number(now)} +inf]"
    knn = f"KNN {limit} @{vector_field(len(vector))} $vector EF_RUNTIME {max(ef, limit)} AS {DISTANCE}"
    return (
        *("FT.SEARCH", index, f"(@scope:{{{escaped(scope)}}}{fresh})=>[{knn}]"),
        *("RETURN", len(_ENTRY) + 1, *_ENTRY, DISTANCE),
        *("SORTBY", DISTANCE, "ASC", "LIMIT", 0, limit, "TIMEOUT", timeout),
        *("PARAMS", 2, "vector", blob(vector), "DIALECT", 2),
    )


def marked(index: str, *, namespace: str | None, tags: Iterable[str], start: int, count: int) -> tuple[Any, ...]:
    """Entries of a namespace and with any of the tags, with what says so; complete however long it takes."""
    wanted = [] if namespace is None else [f"@namespace:{{{escaped(namespace)}}}"]
    labels = "|".join(sorted(map(label, tags)))
    if labels:
        wanted.append(f"@labels:{{{labels}}}")
    return (
        *("FT.SEARCH", index, " ".join(wanted) or "*", "RETURN", 2, "namespace", "tags"),
        *("LIMIT", start, count, "TIMEOUT", 0, "DIALECT", 2),
    )


def fields(entry: Entry, vector: Vector | None) -> list[Any]:
    """Names and values in turn: the entry's, and what only the index reads. What is empty there is left out:
    an empty vector would keep the whole entry out of the index."""
    row = rows.fields(entry, None)
    # The vector's field has its length in its name: one index never meets a vector of another's.
    labels = ["labels", ",".join(sorted({label(tag) for tag in entry.tags}))] if entry.tags else []
    return [*row, *labels, *([] if vector is None else [vector_field(len(vector)), blob(vector)])]


def entry(key: bytes, prefix: str, row: dict[bytes, Any]) -> Entry:
    return rows.entry(key.decode().removeprefix(prefix), {**_EMPTY, **row})


def cosine(row: dict[bytes, Any]) -> float:
    """The server's distance is 1 - cosine."""
    return max(-1.0, min(1.0, 1.0 - float(row[DISTANCE.encode()])))


def hits(reply: Any) -> list[Hit]:
    """The entries of a reply to FT.SEARCH, a list (RESP2) or a map (RESP3).

    One that expired or was deleted while the search ran has no fields, in some versions only what the search
    computed, or not even a key: it is left out.
    """
    found = [(_bytes(key), _row(row)) for key, row in _results(reply) if key is not None and row]
    return [(key, row) for key, row in found if b"namespace" in row]


def size(reply: Any) -> int:
    """How many results a reply to FT.SEARCH has, with those that have no fields."""
    return len(_results(reply))


def indexed(reply: Any) -> tuple[bool, bool]:
    """Of a reply to FT.INFO: whether all earlier entries are indexed by now, and whether every one could be."""
    told = _row(reply)
    scanning = float(told.get(b"indexing") or 0) != 0 or float(told.get(b"percent_indexed") or 1) < 1
    return not scanning, float(told.get(b"hash_indexing_failures") or 0) == 0


def is_missing(message: str) -> bool:
    """Whether an error says that there is no such index."""
    return _MISSING.search(message) is not None


def is_absent(message: str) -> bool:
    """Whether an error says that the server does not know the command."""
    return _ABSENT.search(message) is not None


def escaped(text: str) -> str:
    """A whole value of a TAG filter."""
    return re.sub(r"([^0-9A-Za-z_\u0080-\U0010ffff])", r"\\\1", text)


def label(tag: str) -> str:
    """A tag as the index has it: any text, of which the index would trim, split or fold some."""
    return hashlib.blake2b(encoded(tag), digest_size=12).hexdigest()


def number(seconds: float) -> str:
    """All digits and no exponent."""
    return str(np.format_float_positional(seconds, trim="-"))


def vector_field(dims: int) -> str:
    return f"vector{dims}"


def blob(vector: Vector) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()


def _results(reply: Any) -> list[tuple[Any, Any]]:
    if isinstance(reply, dict):
        return [(_of(result, "id"), _of(result, "extra_attributes")) for result in _of(reply, "results") or ()]
    return list(zip(reply[1::2], reply[2::2], strict=True))


def _row(reply: Any) -> dict[bytes, Any]:
    pairs: Iterable[Sequence[Any]]
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_bytes(name): value for name, value in pairs}


def _of(reply: dict[Any, Any], name: str) -> Any:
    """By either form of a name; clients differ in what they decode."""
    return reply.get(name.encode(), reply.get(name))


def _bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()
