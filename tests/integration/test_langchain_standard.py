"""LangChain's own conformance suites for caches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from langchain_core.caches import BaseCache
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite
from servers import REDIS_8, REDIS_LIKE

from dispatch_core import SentenceTransformerEmbedder
from langchain_dispatch import SemanticCache, SemanticRedisCache


@pytest.fixture(params=[*REDIS_LIKE, *REDIS_8])
def server_url(request: pytest.FixtureRequest) -> str:
    """Of a Valkey, a Redis, and a Redis 8, which is searched by its vector sets."""
    return str(request.getfixturevalue(f"{request.param}_url"))


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
    def cache(self, minilm: SentenceTransformerEmbedder, server_url: str) -> Iterator[BaseCache]:
        with_store = SemanticRedisCache(server_url, embedder=minilm, namespace=uuid4().hex)
        yield with_store
        with_store.close()


class TestSemanticRedisCacheAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, minilm: SentenceTransformerEmbedder, server_url: str) -> AsyncIterator[BaseCache]:
        with_store = SemanticRedisCache(server_url, embedder=minilm, namespace=uuid4().hex)
        yield with_store
        await with_store.aclose()
