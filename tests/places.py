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
"""Kinds of places that several stores may share: a file, or an index on a server."""
SLOW = {"double on valkey"}
"""Looks at every entry in every search."""

_INDEXES: dict[str, Callable[..., Any]] = {
    "near": RedisNearStore,
    "vectorset": VectorSetStore,
    "redisearch": RediSearchStore,
    "double": DoubleStore,
    "auto": RedisAutoStore,
}


@dataclass
class Place:
    """Where stores of one kind keep their entries; stores opened here share them if ``url`` is not None."""

    open: Callable[[], Any]
    url: str | None = None


def place_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if kind == "memory":
        return Place(MemoryStore)
    if kind == "sqlite":
        path = tmp_path / "cache.db"
        return Place(lambda: SQLiteStore(path, timeout=20), f"sqlite:///{path}")
    index, _, server = kind.partition(" on ")
    url: str = request.getfixturevalue(f"{server}_url")
    address = f"{url}#{index}#{uuid.uuid4().hex}"
    return Place(lambda: reopened(address), address)


def reopened(address: str) -> Any:
    """The store of a place's ``url``, also in another process."""
    url, *rest = address.split("#")
    if not rest:
        return store_from_url(url)
    index, prefix = rest
    return _INDEXES[index](url, prefix=prefix, timeout=20)


async def found(store: Either, vector=EAST, *, scope: str = HERE, limit: int = 10, now: float = NOW) -> list:
    """The ids a search finds, best first."""
    return [match.entry.id for match in await store.search(vector, scope=scope, limit=limit, now=now)]
