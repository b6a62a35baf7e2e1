"""LangChain's own conformance suites for caches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from langchain_core.caches import BaseCache
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from dispatch_core import SentenceTransformerEmbedder
from langchain_dispatch import SemanticCache, SemanticRedisCache


class TestSemanticCacheSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, minilm: SentenceTransformerEmbedder) -> Iterator[BaseCache]:
        with_store = SemanticCache(embedder=minilm)
        yield with_store
        with_store.close()


class TestSemanticCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, minilm: SentenceTransformerEmbedder) -> AsyncIterator[BaseCache]:
        with_store = SemanticCache(embedder=minilm)
        yield with_store
        await with_store.aclose()


class TestSemanticRedisCacheSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, minilm: SentenceTransformerEmbedder, redis_like_url: str) -> Iterator[BaseCache]:
        with_store = SemanticRedisCache(redis_like_url, embedder=minilm, namespace=uuid4().hex)
        yield with_store
        with_store.close()


class TestSemanticRedisCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, minilm: SentenceTransformerEmbedder, redis_like_url: str) -> AsyncIterator[BaseCache]:
        with_store = SemanticRedisCache(redis_like_url, embedder=minilm, namespace=uuid4().hex)
        yield with_store
        await with_store.aclose()
