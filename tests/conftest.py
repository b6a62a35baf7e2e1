"""Fixtures that several suites share. Nothing here asks a network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# What somebody exported for himself is no part of a test.
os.environ["DISPATCHER_MODELS"] = os.devnull

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from servers import REDIS_LIKE, REDISEARCH_URL, Server

from dispatch_core import OnnxEmbedder, SentenceTransformerEmbedder
from dispatch_core.embed.export import export_model


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    yield from _served("valkey")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    yield from _served("redis")


@pytest.fixture(scope="session")
def redis8_url() -> Iterator[str]:
    yield from _served("redis8")


@pytest.fixture(scope="session")
def redisearch_url() -> str:
    """A server that is not ours: the tests leave there what has a random prefix."""
    return REDISEARCH_URL


@pytest.fixture(scope="session")
def chroma_url() -> Iterator[str]:
    yield from _served("chroma")


@pytest.fixture(params=REDIS_LIKE)
def redis_like_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Valkey, then of a Redis; what a test leaves there is gone before the next."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    yield url
    with redis.Redis.from_url(url) as client:
        client.flushall()


@pytest.fixture(params=REDIS_LIKE)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the test may stop and start."""
    server = Server(request.param).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformerEmbedder:
    embedder = SentenceTransformerEmbedder()
    embedder.load()
    return embedder


@pytest.fixture(scope="session")
def exported_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all-MiniLM-L6-v2 as a graph."""
    return export_model("all-MiniLM-L6-v2", to=tmp_path_factory.mktemp("models") / "minilm").folder


@pytest.fixture(scope="session")
def onnx_minilm(exported_minilm: Path) -> OnnxEmbedder:
    embedder = OnnxEmbedder(path=exported_minilm)
    embedder.load()
    return embedder


def _served(kind: str) -> Iterator[str]:
    server = Server(kind).start()
    yield server.url
    server.stop()
