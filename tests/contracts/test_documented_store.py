"""The store that the guide shows how to write keeps what every store promises."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import test_store_contract
import test_store_life
from documents import ROOT, blocks_of
from places import Place

_GUIDE = ROOT / "docs" / "guides" / "extending.md"


def _documented() -> Any:
    names: dict[str, Any] = {"__name__": "documented"}
    exec(compile(blocks_of(_GUIDE)[0].code, str(_GUIDE), "exec"), names)
    return names["DictStore"]


@pytest.fixture
def place() -> Place:
    return Place(_documented())


def _of_any_store(suite: Any) -> dict[str, Any]:
    """The tests that need a store and no place that several share."""
    return {
        name: test
        for name, test in vars(suite).items()
        if name.startswith("test_") and {"store", "place"} & set(inspect.signature(test).parameters)
    }


globals().update(_of_any_store(test_store_contract) | _of_any_store(test_store_life))
