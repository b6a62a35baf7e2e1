"""Vector stores: adapters from a database to the `VectorStore` port."""

from dispatch_core.stores.chroma import ChromaStore
from dispatch_core.stores.memory import MemoryStore
from dispatch_core.stores.milvus import MilvusStore
from dispatch_core.stores.redisnear import RedisNearStore
from dispatch_core.stores.sqlite import SQLiteStore
from dispatch_core.stores.urls import store_from_url

__all__ = ["ChromaStore", "MemoryStore", "MilvusStore", "RedisNearStore", "SQLiteStore", "store_from_url"]
