"""A `DispatchLLM` that comes back from a dict, and what LlamaIndex asks of the class of an integration."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from framework_embedders import HashingEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llamaindex_models import FORMS, Ask, achat, close_clients, hit, openai_at, user

from dispatch_core import ConfigError, HashingEmbedder, MemoryStore, SemanticCache, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchFunctionCallingLLM, DispatchLLM, LlamaIndexEmbedder

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


def cached() -> SemanticCache:
    return SemanticCache(HashingEmbedder(), MemoryStore())


def test_a_model_comes_back_from_its_dict_and_finds_what_it_stored(sim: Simulator) -> None:
    cache, limiter = cached(), TokenLimiter(rpm=6000, burst=60)
    llm = DispatchLLM(
        openai_at(sim.url, temperature=0.7, system_prompt="Be brief."),
        cache=cache,
        rate_limiter=limiter,
        namespace="acme",
        semantic_vars=("question",),
        max_semantic_tokens=50,
    )
    first = llm.chat(user("How do I pay?"))
    shown = json.loads(json.dumps(llm.to_dict()))
    back: Any = DispatchLLM.from_dict(shown, cache=cache, rate_limiter=limiter)
    assert type(back) is DispatchFunctionCallingLLM
    assert (back.namespace, back.semantic_vars, back.max_semantic_tokens) == ("acme", ("question",), 50)
    assert (back.llm.temperature, back.system_prompt) == (0.7, "Be brief.")
    again = back.chat(user("How do I pay?"))
    assert (hit(again), again.message.content) == ("exact", first.message.content)
    assert back.to_dict() == llm.to_dict()


def test_a_model_that_came_back_alone_asks_and_takes_a_cache_later(sim: Simulator) -> None:
    back = DispatchLLM.from_dict(DispatchLLM(openai_at(sim.url), cache=cached()).to_dict())
    for asked in (1, 2):
        with back.llm._get_client():
            assert back.chat(user("How do I pay?")).message.content
        back.llm._client = None
        assert sim.stats().requests == asked
    assert (back.cache, back.rate_limiter) == (None, None)


class Mine(MockLLM):
    @classmethod
    def class_name(cls) -> str:
        return "Mine"


def test_a_model_of_one_s_own_comes_back_once_its_class_is_imported() -> None:
    back = DispatchLLM.from_dict(DispatchLLM(Mine(max_tokens=2)).to_dict())
    assert type(back.llm) is Mine
    assert back.complete("Hi").text == "text text"


def test_a_model_that_nobody_knows_must_be_given() -> None:
    shown = DispatchLLM(Mine(max_tokens=2), namespace="acme").to_dict()
    shown["llm"]["class_name"] = "Theirs"
    with pytest.raises(ConfigError, match="'Theirs' is imported: give the wrapped model as llm="):
        DispatchLLM.from_dict(shown)
    assert DispatchLLM.from_dict(shown, llm=MockLLM()).namespace == "acme"
    assert shown["llm"]["class_name"] == "Theirs"


# Embedding models of the framework


def test_a_cache_with_a_model_of_the_framework_says_how_it_is_taken() -> None:
    cache = SemanticCache(HashingEmbedding(), MemoryStore())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"LlamaIndexEmbedder\(HashingEmbedding"):
        DispatchLLM(MockLLM(), cache=cache)


@pytest.mark.parametrize("ask", FORMS)
async def test_a_model_of_the_framework_embeds_for_the_cache(sim: Simulator, ask: Ask) -> None:
    model = HashingEmbedding()
    llm = DispatchLLM(openai_at(sim.url), cache=SemanticCache(LlamaIndexEmbedder(model), MemoryStore()))
    await ask(llm, "How do I pay?")
    assert hit(await ask(llm, "How do I pay?")) == "exact"
    assert "How do I pay?" in model._asked


# Going past the cache


@pytest.mark.parametrize("ask", FORMS)
async def test_a_call_in_a_bypass_asks_and_stores_nothing_in_every_form(sim: Simulator, ask: Ask) -> None:
    llm = DispatchLLM(openai_at(sim.url), cache=cached())
    with llm.bypass_cache():
        await ask(llm, "How do I pay?")
    assert hit(await ask(llm, "How do I pay?")) is None
    with llm.bypass_cache():
        assert hit(await ask(llm, "How do I pay?")) is None
    assert hit(await ask(llm, "How do I pay?")) == "exact"
    assert sim.stats().requests == 3


async def test_an_async_stream_asked_for_in_a_bypass_may_be_read_later(sim: Simulator) -> None:
    llm = DispatchLLM(openai_at(sim.url), cache=cached())
    await achat(llm, "How do I pay?")
    with llm.bypass_cache():
        stream = await llm.astream_chat(user("How do I pay?"))
    assert hit([chunk async for chunk in stream][-1]) is None
    assert hit(await achat(llm, "How do I pay?")) == "exact"


async def test_a_bypass_is_of_one_model_and_of_one_context(sim: Simulator) -> None:
    cache = cached()
    llm, other = (DispatchLLM(openai_at(sim.url), cache=cache) for _ in range(2))
    await achat(llm, "How do I pay?")
    with llm.bypass_cache():
        assert hit(await achat(other, "How do I pay?")) == "exact"
        assert hit(await achat(llm, "How do I pay?")) is None


# What integrations of LlamaIndex carry


@pytest.mark.parametrize("kind", [DispatchLLM, DispatchFunctionCallingLLM])
def test_class(kind: type) -> None:
    names_of_base_classes = [b.__name__ for b in kind.__mro__]
    assert BaseLLM.__name__ in names_of_base_classes
    assert LLM.__name__ in names_of_base_classes


def test_the_function_calling_class_is_one() -> None:
    names_of_base_classes = [b.__name__ for b in DispatchFunctionCallingLLM.__mro__]
    assert FunctionCallingLLM.__name__ in names_of_base_classes


def test_the_hub_is_told_where_the_classes_are() -> None:
    told = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["llamahub"]
    package = import_module(told["import_path"])
    assert told["contains_example"] is False
    assert told["class_authors"].keys() == {"DispatchLLM", "LlamaIndexEmbedder"}
    assert all(getattr(package, name) for name in told["class_authors"])
