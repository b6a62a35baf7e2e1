"""The examples in the docstrings of public names."""

from __future__ import annotations

import doctest
import importlib

import pytest

import langchain_dispatch

MODULES = [
    "dispatch_core.circumstances",
    "dispatch_core.eligible",
    "dispatch_core.calibrate.families",
    "dispatch_core.interval",
    "dispatch_core.limit.retry",
    "langchain_dispatch.cache",
    "langchain_dispatch.chat",
    "langchain_dispatch.embedder",
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


@pytest.mark.parametrize("name", [*langchain_dispatch.__all__, "middleware.DispatchMiddleware"])
def test_every_public_name_for_langchain_has_an_example_with_a_fake_model(name: str) -> None:
    module, _, name = name.rpartition(".")
    importlib.import_module(f"langchain_dispatch.{module}".rstrip("."))
    public = getattr(getattr(langchain_dispatch, module) if module else langchain_dispatch, name)
    assert ">>> " in public.__doc__
    # What all fronts share knows no model of LangChain.
    assert "FakeListChatModel" in public.__doc__ or public.__module__.startswith("dispatch_core")
