"""One line of configuration to a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode

from dispatch_core.errors import ConfigError
from dispatch_core.ports import VectorStore
from dispatch_core.stores.chroma import ChromaStore
from dispatch_core.stores.memory import MemoryStore
from dispatch_core.stores.milvus import MilvusStore
from dispatch_core.stores.redisauto import RedisAutoStore
from dispatch_core.stores.redisearch import RediSearchStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.sqlite import SQLiteStore
from dispatch_core.stores.vectorset import VectorSetStore

if TYPE_CHECKING:
    import redis
    import redis.asyncio

Index: TypeAlias = Literal["auto", "near", "vectorset", "redisearch"]
"""How a Redis is searched; "auto" asks the server at the first use."""

_REDIS = (
    *("redis://", "rediss://", "unix://"),
    *("redis+cluster://", "rediss+cluster://", "redis+sentinel://", "rediss+sentinel://"),
)
_SERVED = ("milvus+http://", "milvus+https://", "chroma+http://", "chroma+https://")
_FILES: dict[str, Callable[[str], VectorStore]] = {
    "sqlite": SQLiteStore,
    "milvus": MilvusStore,
    "chroma": ChromaStore,
}
_INDEXES: dict[str, Callable[..., VectorStore]] = {
    "auto": RedisAutoStore,
    "near": RedisNearStore,
    "vectorset": VectorSetStore,
    "redisearch": RediSearchStore,
}


def redis_store(
    url: str | None = None,
    *,
    index: Index = "auto",
    client: redis.Redis | None = None,
    async_client: redis.asyncio.Redis | None = None,
) -> VectorStore:
    """Make a store on a Redis that is searched as ``index`` says; no server is contacted yet.

    The URL may say it as well: ``redis://localhost:6379/0?index=near``. That of the URL goes first.
    """
    url, told = (None, None) if url is None else _without_index(url)
    index = told or index
    if index not in _INDEXES:
        raise ConfigError(f"index is one of {', '.join(map(repr, _INDEXES))}, got {index!r}")
    return _INDEXES[index](url, client=client, async_client=async_client)


def store_from_url(url: str) -> VectorStore:
    """Make a store from ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``redis://…``,
    ``rediss://…``, ``unix://…``, ``redis+cluster://host:port``, ``redis+sentinel://host:port,host:port/service`` (the
    last two with TLS as ``rediss+…``), ``milvus:///relative.db``, ``milvus:////absolute.db``,
    ``milvus+http://host:19530``, ``chroma://`` (in memory), ``chroma:///folder`` or ``chroma+http://host:8000`` (also
    ``+https``). Anything else raises `ConfigError`; no server is contacted yet.

    The index of a Redis is a parameter, "auto" by default: ``redis://localhost:6379/0?index=near``.
    """
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if url in ("chroma:", "chroma://"):
        return ChromaStore()
    if url.startswith(_REDIS):
        return redis_store(url)
    if url.startswith(_SERVED):
        kind, _, address = url.partition("+")
        return MilvusStore(address) if kind == "milvus" else ChromaStore(url=address)
    scheme, _, path = url.partition(":///")
    if path and scheme in _FILES:
        return _FILES[scheme](path)
    raise ConfigError(
        f"unknown store {url.partition('://')[0]!r}; known are memory://, sqlite:///file.db (three slashes), "
        "redis://, rediss://, unix://, redis+cluster://, redis+sentinel://, milvus:///file.db, milvus+http(s)://, "
        "chroma://, chroma:///folder and chroma+http(s)://"
    )


def _without_index(url: str) -> tuple[str, Any]:
    """Redis' own client would take it for a setting of its connections."""
    address, _, query = url.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    told = [value for name, value in parameters if name == "index"]
    rest = urlencode([(name, value) for name, value in parameters if name != "index"])
    return (f"{address}?{rest}" if rest else address), (told[-1] if told else None)
