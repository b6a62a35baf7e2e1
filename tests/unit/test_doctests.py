"""The examples in the docstrings of public names."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "dispatch_core.circumstances",
    "dispatch_core.eligible",
    "dispatch_core.calibrate.families",
    "dispatch_core.interval",
    "dispatch_core.limit.retry",
    "langchain_dispatch.cache",
    "langchain_dispatch.chat",
    "langchain_dispatch.installed",
    "langchain_dispatch.middleware",
    "langchain_dispatch.rate_limiter",
    "langchain_dispatch.runnable",
    "llamaindex_dispatch.rate_limiter",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_hold(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0
