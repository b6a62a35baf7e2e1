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

from dispatch_core import ChromaStore, MemoryStore, MilvusStore, RedisNearStore, SQLiteStore
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
    prefix = f"t{uuid.uuid4().hex}"
    if kind == "milvus":
        # One file for all: to open one takes longer than a test.
        file = request.getfixturevalue("milvus_file")
        return Place(lambda: MilvusStore(file, prefix=prefix, timeout=20))
    if kind == "chroma":
        return Place(lambda: ChromaStore(prefix=prefix, timeout=20))
    if kind == "chroma-persistent":
        return Place(lambda: ChromaStore(tmp_path, prefix=prefix, timeout=20))
    if kind == "chroma-http":
        server: str = request.getfixturevalue("chroma_url")
        return Place(lambda: ChromaStore(url=server, prefix=prefix, timeout=20), f"{server}#{prefix}")
    url: str = request.getfixturevalue(f"{kind}_url")
    return Place(lambda: RedisNearStore(url, prefix=prefix, timeout=20), f"{url}#{prefix}")


async def found(store: Either, vector=EAST, *, scope: str = HERE, limit: int = 10, now: float = NOW) -> list:
    """The ids a search finds, best first."""
    return [match.entry.id for match in await store.search(vector, scope=scope, limit=limit, now=now)]
