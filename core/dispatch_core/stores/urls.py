"""One line of configuration to a store."""

from __future__ import annotations

from collections.abc import Callable

from dispatch_core.errors import ConfigError
from dispatch_core.ports import VectorStore
from dispatch_core.stores.chroma import ChromaStore
from dispatch_core.stores.memory import MemoryStore
from dispatch_core.stores.milvus import MilvusStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.sqlite import SQLiteStore

_REDIS = ("redis://", "rediss://", "unix://")
_SERVED = ("milvus+http://", "milvus+https://", "chroma+http://", "chroma+https://")
_FILES: dict[str, Callable[[str], VectorStore]] = {
    "sqlite": SQLiteStore,
    "milvus": MilvusStore,
    "chroma": ChromaStore,
}


def store_from_url(url: str) -> VectorStore:
    """Make a store from ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``redis://…``,
    ``rediss://…``, ``unix://…``, ``milvus:///relative.db``, ``milvus:////absolute.db``, ``milvus+http://host:19530``,
    ``chroma://`` (in memory), ``chroma:///folder`` or ``chroma+http://host:8000``; the last of each also ``+https``.
    Anything else raises `ConfigError`; no server is contacted yet.
    """
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if url in ("chroma:", "chroma://"):
        return ChromaStore()
    if url.startswith(_REDIS):
        return RedisNearStore(url)
    if url.startswith(_SERVED):
        kind, _, address = url.partition("+")
        return MilvusStore(address) if kind == "milvus" else ChromaStore(url=address)
    scheme, _, path = url.partition(":///")
    if path and scheme in _FILES:
        return _FILES[scheme](path)
    raise ConfigError(
        f"unknown store {url.partition('://')[0]!r}; known are memory://, sqlite:///file.db (three slashes), "
        "redis://, rediss://, unix://, milvus:///file.db, milvus+http(s)://, chroma://, chroma:///folder and "
        "chroma+http(s)://"
    )
