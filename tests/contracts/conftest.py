"""Stores of every kind, in both forms of their calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fakes import FORMS, Either
from places import SHARED, SLOW, Place, place_of


@pytest.fixture(params=["memory", *SHARED])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=[kind for kind in ("memory", *SHARED) if kind not in SLOW])
def crowded(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a thousand entries."""
    return place_of(request.param, request, tmp_path)


@pytest.fixture(params=SHARED)
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
