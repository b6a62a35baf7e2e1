"""Vector stores: adapters from a database to the `VectorStore` port."""

from dispatch_core.stores.memory import MemoryStore
from dispatch_core.stores.redisauto import RedisAutoStore
from dispatch_core.stores.redisearch import RediSearchStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.sqlite import SQLiteStore
from dispatch_core.stores.urls import Index, redis_store, store_from_url
from dispatch_core.stores.vectorset import VectorSetStore

__all__ = [
    "Index",
    "MemoryStore",
    "RediSearchStore",
    "RedisAutoStore",
    "RedisNearStore",
    "SQLiteStore",
    "VectorSetStore",
    "redis_store",
    "store_from_url",
]
