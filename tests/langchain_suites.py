"""LangChain's conformance suites for chat models, on one model given by the environment: a test runs them.

``SUITE_URL`` is the provider; with ``SUITE_DISPATCHED`` the model is a dispatched one, with a cache and a limiter.
"""

from __future__ import annotations

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from dispatch_core import HashingEmbedder
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch

_CLASS: type[BaseChatModel] = ChatOpenAI
_PARTS: dict[str, Any] = {}
if os.environ.get("SUITE_DISPATCHED"):
    _CLASS = type(dispatch(ChatOpenAI(model="sim", api_key="k")))  # type: ignore[arg-type]
    _PARTS = {
        "cache": SemanticCache(embedder=HashingEmbedder()),
        "rate_limiter": TokenRateLimiter(rpm=60_000, tpm=60_000_000),
    }


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return _CLASS

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "sim", "api_key": "k", **_PARTS}


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return _CLASS

    @property
    def chat_model_params(self) -> dict[str, Any]:
        url = os.environ["SUITE_URL"]
        return {
            "model": "sim",
            "api_key": "k",
            "base_url": url,
            "stream_usage": True,
            "max_retries": 0,
            **_PARTS,
        }


def test_nothing_is_left_open() -> None:
    if _PARTS:
        assert _PARTS["rate_limiter"].stats().open == 0
        assert len(_PARTS["cache"].dispatcher._flights) == 0
