"""Vector stores: adapters from a database to the `VectorStore` port."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.stores.chroma import ChromaStore
    from dispatch_core.stores.memory import MemoryStore
    from dispatch_core.stores.milvus import MilvusStore
    from dispatch_core.stores.redisauto import RedisAutoStore
    from dispatch_core.stores.redisearch import RediSearchStore
    from dispatch_core.stores.redisnear import RedisNearStore
    from dispatch_core.stores.sqlite import SQLiteStore
    from dispatch_core.stores.urls import Index, redis_store, store_from_url
    from dispatch_core.stores.vectorset import VectorSetStore
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "ChromaStore": "chroma",
            "Index": "urls",
            "MemoryStore": "memory",
            "MilvusStore": "milvus",
            "RediSearchStore": "redisearch",
            "RedisAutoStore": "redisauto",
            "RedisNearStore": "redisnear",
            "SQLiteStore": "sqlite",
            "VectorSetStore": "vectorset",
            "redis_store": "urls",
            "store_from_url": "urls",
        },
    )

__all__ = [
    "ChromaStore",
    "Index",
    "MemoryStore",
    "MilvusStore",
    "RediSearchStore",
    "RedisAutoStore",
    "RedisNearStore",
    "SQLiteStore",
    "VectorSetStore",
    "redis_store",
    "store_from_url",
]
