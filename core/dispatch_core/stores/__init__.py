"""Vector stores: adapters from a database to the `VectorStore` port."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.stores.memory import MemoryStore
    from dispatch_core.stores.redisnear import RedisNearStore
    from dispatch_core.stores.sqlite import SQLiteStore
    from dispatch_core.stores.urls import store_from_url
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "MemoryStore": "memory",
            "RedisNearStore": "redisnear",
            "SQLiteStore": "sqlite",
            "store_from_url": "urls",
        },
    )

__all__ = ["MemoryStore", "RedisNearStore", "SQLiteStore", "store_from_url"]
