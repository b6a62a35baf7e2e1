"""Stores of every kind, in both forms of their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import FORMS, Either
from places import COLLECTIONS, COLLECTIONS_SHARED, SHARED, Place, place_of

from dispatch_core import ChromaStore, MilvusStore


@pytest.fixture(scope="session")
def milvus_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens stores in one file of Milvus Lite, which is open as long as the session."""
    yield from _kept(partial(MilvusStore, tmp_path_factory.mktemp("milvus") / "cache.db"))


@pytest.fixture(scope="session")
def chroma_kept() -> Iterator[Callable[..., Any]]:
    yield from _kept(ChromaStore)


@pytest.fixture(scope="session")
def chroma_persistent_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    yield from _kept(partial(ChromaStore, tmp_path_factory.mktemp("chroma")))


def _kept(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    keeper = make()
    yield make
    keeper.close()


@pytest.fixture(params=["memory", *SHARED, *COLLECTIONS])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=[*SHARED, *COLLECTIONS_SHARED])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that several stores of this process may share."""
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=[*SHARED, "chroma-http"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place that several processes may share."""
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
