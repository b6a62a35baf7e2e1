"""Where the stores of the contract suites keep their entries."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes import Either, unit
from redisearch_double import DoubleStore
from servers import REDIS_8, REDIS_LIKE, REDISEARCH_URL

from dispatch_core import (
    ChromaStore,
    MemoryStore,
    RedisAutoStore,
    RediSearchStore,
    RedisNearStore,
    SQLiteStore,
    VectorSetStore,
    store_from_url,
)
from dispatch_core.keys import digest

# Later than the real time, so that a server's own clock never expires what these tests still want to see.
NOW = float(round(time.time()) + 1_000_000)
HERE = digest("scope")
EAST, NORTH, WEST = unit(1, 0, 0), unit(0, 1, 0), unit(-1, 0, 0)

HOSTILE = [
    "",
    "   ",
    "nul \x00 inside",
    "Robert'); DROP TABLE entries;--",
    '"quotes" and `ticks` and \\ slashes',
    "* ? [a-z] {tag} ^ - | @field:{x}",
    "line\r\nends\rof\nall kinds \u2028",
    "你好,世界 🎉 \u202eright to left",
    "<|endoftext|>",
    "lone \ud800 surrogates \udfff",
    "two lone ones in a row \ud83c\udf89",
    "very long " * 10_000,
]


SHARED = [
    "sqlite",
    *(f"near on {kind}" for kind in (*REDIS_LIKE, *REDIS_8)),
    *(f"{index} on {kind}" for kind in REDIS_8 for index in ("vectorset", "auto")),
    "double on valkey",
    *(["redisearch on redisearch", "auto on redisearch"] if REDISEARCH_URL else []),
]
"""Stores that processes share, with all their promises, leases among them: a file, or an index on a server."""

COLLECTIONS = ["milvus", "chroma", "chroma-http"]
"""Databases with collections, whose calls take milliseconds."""

COLLECTIONS_SHARED = ["milvus", "chroma-persistent", "chroma-http"]
"""A folder of Chroma's is its memory's engine with a disk: it takes its turn where stores share a place."""

_INDEXES: dict[str, Callable[..., Any]] = {
    "near": RedisNearStore,
    "vectorset": VectorSetStore,
    "redisearch": RediSearchStore,
    "double": DoubleStore,
    "auto": RedisAutoStore,
}


@dataclass
class Place:
    """Where stores of one kind keep their entries; stores opened here share them if ``url`` is not None, also with
    those of another process that `opened` makes of it.

    ``many`` is how many entries a test of many writes: fewer where a call takes milliseconds. Chroma's index loses
    sight of some of 1,000 vectors that lie in order on a circle, whatever its parameters; none is lost, and none of
    400 near-duplicates in 384 dimensions was missed.
    """

    open: Callable[[], Any]
    url: str | None = None
    many: int = 1_000


def place_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if kind == "memory":
        return Place(MemoryStore)
    if kind == "sqlite":
        path = tmp_path / "cache.db"
        return Place(lambda: SQLiteStore(path, timeout=20), f"sqlite:///{path}")
    prefix = f"t{uuid.uuid4().hex}"
    if kind in ("milvus", "chroma", "chroma-persistent"):
        # Kept open meanwhile: to open one takes longer than a test.
        kept: Callable[..., Any] = request.getfixturevalue(f"{kind.replace('-', '_')}_kept")
        return Place(lambda: kept(prefix=prefix, timeout=20), many=200)
    index, _, server = kind.partition(" on ")
    if kind == "chroma-http":
        index, server = "chroma", "chroma"
    url: str = request.getfixturevalue(f"{server}_url")
    address = f"{url}#{index}#{prefix}"
    # The double looks at every entry in every search.
    many = 200 if index in ("chroma", "double") else 1_000
    return Place(lambda: opened(address), address, many=many)


def opened(address: str) -> Any:
    """A store of a place's ``url``, which another process may open too."""
    url, *rest = address.split("#")
    if not rest:
        return store_from_url(url)
    index, prefix = rest
    if index == "chroma":
        return ChromaStore(url=url, prefix=prefix, timeout=20)
    return _INDEXES[index](url, prefix=prefix, timeout=20)


async def found(store: Either, vector=EAST, *, scope: str = HERE, limit: int = 10, now: float = NOW) -> list:
    """The ids a search finds, best first."""
    return [match.entry.id for match in await store.search(vector, scope=scope, limit=limit, now=now)]
