"""Stores of every kind, in both forms of their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fakes import FORMS, Either
from places import Place, place_of
from servers import REDIS_LIKE

from dispatch_core import MilvusStore


COLLECTIONS = ["milvus", "chroma", "chroma-persistent", "chroma-http"]


@pytest.fixture(scope="session")
def milvus_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file of Milvus Lite, open as long as the session."""
    file = tmp_path_factory.mktemp("milvus") / "cache.db"
    keeper = MilvusStore(file)
    yield file
    keeper.close()


@pytest.fixture(params=["memory", "sqlite", *REDIS_LIKE, *COLLECTIONS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", *REDIS_LIKE])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that several stores may share."""
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def store(place: Place, form: str) -> AsyncIterator[Either]:
    either = Either(place.open(), form)
    yield either
    await either.target.aclose()


@pytest.fixture
async def both(shared: Place, form: str) -> AsyncIterator[tuple[Either, Either]]:
    """Two stores of one place, as two processes have them."""
    pair = Either(shared.open(), form), Either(shared.open(), form)
    yield pair
    for either in pair:
        await either.target.aclose()
