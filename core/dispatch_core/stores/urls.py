"""One line of configuration to a store."""

from __future__ import annotations

from dispatch_core.errors import ConfigError
from dispatch_core.ports import VectorStore
from dispatch_core.stores.memory import MemoryStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.sqlite import SQLiteStore

_REDIS = (
    *("redis://", "rediss://", "unix://"),
    *("redis+cluster://", "rediss+cluster://", "redis+sentinel://", "rediss+sentinel://"),
)


def store_from_url(url: str) -> VectorStore:
    """Make a store from ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``redis://…``,
    ``rediss://…``, ``unix://…``, ``redis+cluster://host:port`` or ``redis+sentinel://host:port,host:port/service``
    (the last two with TLS as ``rediss+…``). Anything else raises `ConfigError`; no server is contacted yet.
    """
    if url in ("memory:", "memory://"):
        return MemoryStore()
    if url.startswith("sqlite:///"):
        return SQLiteStore(url.removeprefix("sqlite:///"))
    if url.startswith(_REDIS):
        return RedisNearStore(url)
    scheme = url.partition("://")[0]
    raise ConfigError(
        f"unknown store {scheme!r}; known are memory://, sqlite:///file.db (three slashes), redis://, rediss://, "
        "unix://, redis+cluster:// and redis+sentinel://"
    )
