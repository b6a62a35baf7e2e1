"""Models of `init_chat_model` that are chosen when they are called: cached, limited, and never mixed up."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_models import PLENTY, QUESTION, asked, left_nothing, streamed, summed
from pydantic import BaseModel

from dispatch_core import TokenLimiter
from dispatch_core.simulate import Simulator
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch, install, uninstall, with_rate_limiter
from langchain_dispatch.middleware import DispatchMiddleware

FIELDS = {"any": "any", "the model": ("model",), "the model, prefixed": ("model",)}


class City(BaseModel):
    """A city."""

    name: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def chosen(provider: Simulator, **settings: Any) -> Any:
    given = {"model_provider": "openai", "base_url": provider.url, "api_key": "k", "max_retries": 0, **settings}
    return init_chat_model(**given)


@pytest.fixture
def model(provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter) -> Any:
    provider.reset()
    return dispatch(chosen(provider), cache=cache, rate_limiter=limiter)


def of(model: str) -> Any:
    return {"config": {"configurable": {"model": model}}}


async def test_each_model_has_answers_of_its_own(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    for _ in range(2):
        said = [(await asked(model, form, **of(name))).response_metadata["model_name"] for name in ("one", "two")]
        assert said == ["one", "two"]
    assert provider.stats().requests == limiter.stats().admitted == 2
    assert cache.stats().exact_hits == 2
    assert left_nothing(cache, limiter)


async def test_a_config_that_stays_with_the_model_is_the_same(model: Any, form: str, provider: Simulator) -> None:
    one = model.with_config(configurable={"model": "one"}, tags=["t"])
    first = await asked(one, form)
    assert (await asked(model, form, **of("one"))).content == first.content
    assert summed(await streamed(one, form)).content == first.content
    assert provider.stats().requests == 1


@pytest.mark.parametrize("name", FIELDS)
async def test_streams_are_cached_whatever_may_be_chosen(
    name: str, form: str, provider: Simulator, cache: SemanticCache
) -> None:
    provider.reset()
    prefix = "first_" if "prefixed" in name else ""
    made = dispatch(
        chosen(provider, configurable_fields=FIELDS[name], config_prefix=prefix or None), cache=cache, stream_chunk=7
    )
    config = {"configurable": {f"{prefix}model": "one"}}
    first, again = await streamed(made, form, config=config), await streamed(made, form, config=config)
    assert summed(again).content == summed(first).content
    assert {len(chunk.content) for chunk in again[:-2]} == {7}
    assert provider.stats().requests == 1
    assert left_nothing(cache)


async def test_tools_and_schemas_are_bound_to_whatever_is_chosen(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    bound = model.bind_tools([weather], tool_choice="weather")
    structured = model.with_structured_output(City)
    for name in ("one", "two"):
        calls = [(await asked(bound, form, **of(name))).tool_calls[0] for _ in range(2)]
        assert calls[0]["args"] == calls[1]["args"]
        assert calls[0]["id"] != calls[1]["id"]
        cities = [await asked(structured, form, "Ghent in JSON", **of(name)) for _ in range(2)]
        assert cities[0] == cities[1]
        assert isinstance(cities[0], City)
    assert provider.stats().requests == limiter.stats().admitted == 4
    assert left_nothing(cache, limiter)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("core", [False, True], ids=["LangChain's form", "of the core"])
async def test_a_limiter_of_a_config_limits_it(name: str, core: bool, form: str, provider: Simulator) -> None:
    prefix = "first" if "prefixed" in name else None
    made: Any = dispatch(
        chosen(provider, configurable_fields=FIELDS[name], config_prefix=prefix, model="one"), cache=False
    )
    limiter: Any = TokenLimiter(**PLENTY) if core else TokenRateLimiter(**PLENTY)
    await asked(made.with_config(rate_limiter=limiter), form)
    await asked(made.with_config(rate_limiter=limiter).bind_tools([weather]), form)
    await asked(made.bind_tools([weather]).with_config(rate_limiter=limiter), form)
    await asked(
        ChatPromptTemplate.from_template("{q}") | made.with_config({"rate_limiter": limiter}), form, {"q": "q"}
    )
    await asked(made, form, config={"configurable": {"rate_limiter": limiter}})
    assert (limiter.stats().admitted, limiter.stats().open) == (5, 0)
    await asked(made, form)
    assert limiter.stats().admitted == 5, "the model itself stays as it was"


async def test_with_rate_limiter_reaches_it_inside_a_chain(form: str, provider: Simulator) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    chain = ChatPromptTemplate.from_template("{q}") | chosen(provider)
    await asked(with_rate_limiter(chain, limiter), form, {"q": QUESTION}, **of("one"))
    assert (limiter.stats().admitted, limiter.stats().open) == (1, 0)


async def test_agents_and_their_middleware_take_it(
    model: Any, form: str, provider: Simulator, cache: SemanticCache, limiter: TokenRateLimiter
) -> None:
    plain = chosen(provider, configurable_fields=("model",), model="one")
    ours = DispatchMiddleware(cache=cache, rate_limiter=limiter)
    given = dispatch(plain, cache=cache, rate_limiter=limiter)
    for agent in (create_agent(plain, middleware=[ours]), create_agent(given)):
        for name in ("one", "two"):
            state = await asked(agent, form, {"messages": [("user", QUESTION)]}, **of(name))
            assert state["messages"][-1].response_metadata["model_name"] == name
    assert provider.stats().requests == limiter.stats().admitted == 2
    assert left_nothing(cache, limiter)


def test_dispatching_it_twice_keeps_what_was_given(cache: SemanticCache, limiter: TokenRateLimiter) -> None:
    twice: Any = dispatch(dispatch(init_chat_model(), cache=cache, stream_chunk=3), rate_limiter=limiter)
    assert twice._given == {"cache": cache, "stream_chunk": 3, "rate_limiter": limiter}


async def test_after_install_a_plain_one_is_limited_by_its_config(form: str, provider: Simulator) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    install()
    try:
        for fields in FIELDS.values():
            made = chosen(provider, configurable_fields=fields, model="one")
            await asked(made.with_config(rate_limiter=limiter), form)
    finally:
        uninstall()
    assert (limiter.stats().admitted, limiter.stats().open) == (3, 0)
