"""Limiters inside chains: `with_rate_limiter`, and ``with_config`` before and after `install`."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, FakeListChatModel, FakeListLLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.base import RunnableEach
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.router import RouterRunnable
from langchain_core.tools import tool
from langchain_models import PLENTY, QUESTION, model_of
from pydantic import BaseModel

from dispatch_core import ConfigError, TokenLimiter
from dispatch_core.simulate import Simulator
from langchain_dispatch import TokenRateLimiter, dispatch, ignored, install, uninstall, with_rate_limiter

CLASSES = [Runnable, RunnableBinding, RunnableEach, DynamicRunnable]


@pytest.fixture
def installed() -> Iterator[None]:
    install()
    yield
    uninstall()


@pytest.fixture
def unwarned() -> Iterator[None]:
    """Nobody was warned yet."""
    ignored._warned.clear()
    yield
    ignored._warned.set()


def fake() -> FakeListChatModel:
    return FakeListChatModel(responses=["an answer"])


def admitted(limiter: TokenRateLimiter) -> tuple[int, int]:
    return limiter.stats().admitted, limiter.stats().open


PROMPT = ChatPromptTemplate.from_template("{question}")
CHAINS: dict[str, tuple[Any, Any, int]] = {
    "sequence": (PROMPT | fake() | StrOutputParser(), {"question": "q"}, 1),
    "binding": (fake().bind(stop=["x"]), "q", 1),
    "config": (fake().with_config(tags=["t"]), "q", 1),
    "retry": (fake().with_retry(), "q", 1),
    "fallbacks": (fake().with_fallbacks([fake()]), "q", 1),
    "parallel": (RunnableParallel(a=fake(), b={"c": fake()}), "q", 2),
    "assign": (
        RunnablePassthrough.assign(a=lambda asked: asked["q"])
        | RunnableAssign(RunnableParallel(b=RunnableLambda(lambda asked: asked["q"]) | fake())),
        {"q": "q"},
        1,
    ),
    "branch": (RunnableBranch((lambda asked: asked == "q", fake()), fake()), "q", 1),
    "branch by default": (RunnableBranch((lambda asked: asked != "q", fake()), fake()), "q", 1),
    "map": (fake().map(), ["q", "r"], 2),
    "router": (RouterRunnable({"a": fake()}), {"key": "a", "input": "q"}, 1),
    "fields": (fake().configurable_fields(sleep=ConfigurableField("sleep")), "q", 1),
    "alternatives": (fake().configurable_alternatives(ConfigurableField("m"), other=fake()), "q", 1),
    "listeners": (fake().with_listeners(on_end=lambda run: None), "q", 1),
    "nested": ((PROMPT | fake().with_retry()).with_fallbacks([PROMPT | fake()]).map(), [{"question": "q"}], 1),
}


@pytest.mark.parametrize("name", CHAINS)
def test_every_model_of_a_chain_asks_the_limiter_and_the_chain_itself_stays(
    name: str, limiter: TokenRateLimiter
) -> None:
    chain, given, calls = CHAINS[name]
    limited = with_rate_limiter(chain, limiter)
    assert type(limited) is type(chain)
    limited.invoke(given)
    chain.invoke(given)
    assert admitted(limiter) == (calls, 0)


@pytest.mark.parametrize("other", [fake(), fake], ids=["a model", "made when it is chosen"])
def test_an_alternative_is_limited_when_it_is_chosen(other: Any, limiter: TokenRateLimiter) -> None:
    model = with_rate_limiter(fake().configurable_alternatives(ConfigurableField("m"), other=other), limiter)
    model.with_config(configurable={"m": "other"}).invoke("q")
    assert admitted(limiter) == (1, 0)


def test_structured_output_and_bound_tools_are_limited(provider: Simulator, limiter: TokenRateLimiter) -> None:
    class City(BaseModel):
        name: str

    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    model = model_of(provider)
    with_rate_limiter(model.with_structured_output(City, include_raw=True), limiter).invoke("Ghent in JSON")
    with_rate_limiter(model.bind_tools([weather]), limiter).invoke(QUESTION)
    assert admitted(limiter) == (2, 0)


def test_a_core_limiter_and_langchains_own_are_taken() -> None:
    core = TokenLimiter(**PLENTY)
    with_rate_limiter(fake(), core).invoke("q")
    assert core.stats().admitted == 1
    own = InMemoryRateLimiter(requests_per_second=1000)
    assert with_rate_limiter(fake(), own).rate_limiter is own
    with pytest.raises(ConfigError, match="rate_limiter"):
        with_rate_limiter(fake(), 5)  # type: ignore[arg-type]


def in_a_function() -> Any:
    model = fake()
    return RunnableLambda(lambda asked: model.invoke(asked).content)


def in_a_generator() -> Any:
    model = fake()

    def answers(asked: Iterator[str]) -> Iterator[str]:
        for one in asked:
            yield str(model.invoke(one).content)

    return RunnableGenerator(answers)


class Holding(Runnable[Any, Any]):
    def __init__(self) -> None:
        self.models = [fake()]

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return self.models[0].invoke(input, config)


OUT_OF_REACH = [
    (in_a_function, r"RunnableLambda holds a model.*dispatch\(model, rate_limiter=limiter\)"),
    (lambda: PROMPT | in_a_function(), "RunnableLambda holds a model"),
    (in_a_generator, "RunnableGenerator holds a model"),
    (Holding, "Holding holds a model"),
    (lambda: create_agent(fake()), r"compiled graph.*DispatchMiddleware\(rate_limiter=limiter\)"),
    (lambda: PROMPT | create_agent(fake()), "compiled graph"),
    (lambda: FakeListLLM(responses=["a"]), "completion model such as FakeListLLM"),
    (lambda: PROMPT | FakeListLLM(responses=["a"]), "completion model"),
    (lambda: PROMPT | StrOutputParser(), "no chat model in this RunnableSequence"),
]


@pytest.mark.parametrize(("make", "said"), OUT_OF_REACH, ids=lambda given: "" if callable(given) else given[:20])
def test_what_is_out_of_reach_is_refused_with_the_way_out(make: Any, said: str, limiter: TokenRateLimiter) -> None:
    with pytest.raises(TypeError, match=said):
        with_rate_limiter(make(), limiter)


def test_a_function_without_a_model_is_no_obstacle(limiter: TokenRateLimiter) -> None:
    with_rate_limiter(RunnableLambda(str.upper) | fake() | (lambda answer: answer.content), limiter).invoke("q")
    assert admitted(limiter) == (1, 0)


# install


@pytest.mark.usefixtures("installed")
def test_with_config_limits_a_plain_model(provider: Simulator, limiter: TokenRateLimiter) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return city

    plain: Any = model_of(provider)
    model = plain.with_config(rate_limiter=limiter)
    model.invoke(QUESTION)
    model.bind_tools([weather]).invoke(QUESTION)
    plain.bind_tools([weather]).with_config(rate_limiter=limiter, tags=["t"]).invoke(QUESTION)
    plain.with_config({"rate_limiter": limiter, "tags": ["t"]}).invoke(QUESTION)
    (PROMPT | model).invoke({"question": "q"})
    (PROMPT | plain).with_config(rate_limiter=limiter).invoke({"question": "q"})
    plain.map().with_config(rate_limiter=limiter).invoke(["q"])
    plain.configurable_fields(temperature=ConfigurableField("t")).with_config(rate_limiter=limiter).invoke("q")
    dispatch(plain).with_config(rate_limiter=limiter).invoke("q")
    assert admitted(limiter) == (9, 0)
    plain.invoke(QUESTION)
    assert admitted(limiter) == (9, 0), "the model itself stays as it was"


@pytest.mark.usefixtures("installed")
def test_other_configs_stay_what_they_are() -> None:
    assert isinstance(fake().with_config(tags=["t"]), RunnableBinding)
    assert fake().with_config(configurable={"rate_limiter": "any"}).config == {
        "configurable": {"rate_limiter": "any"}
    }
    assert fake().with_config(rate_limiter="theirs").config == {"rate_limiter": "theirs"}  # type: ignore[arg-type]


def replaceable() -> list[Any]:
    asking = [vars(BaseChatModel).get(name) for name in ("invoke", "ainvoke", "stream", "astream", "stream_events")]
    return [*(vars(kind)["with_config"] for kind in CLASSES), *filter(None, asking)]


def test_install_may_be_repeated_and_is_undone_entirely(limiter: TokenRateLimiter) -> None:
    before = replaceable()
    for _ in range(2):
        install()
        install()
        assert not set(before) & set(replaceable())
        uninstall()
        uninstall()
        assert replaceable() == before


def test_what_was_limited_stays_so_after_uninstall(limiter: TokenRateLimiter) -> None:
    install()
    model = fake().with_config(rate_limiter=limiter)  # type: ignore[arg-type]
    uninstall()
    model.invoke("q")
    assert admitted(limiter) == (1, 0)


def test_a_replacement_by_somebody_else_is_left_alone_and_passes_through(
    limiter: TokenRateLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = vars(Runnable)["with_config"]
    install()
    ours = vars(Runnable)["with_config"]

    def theirs(self: Any, config: Any = None, **kwargs: Any) -> Any:
        return ours(self, config, **kwargs)

    Runnable.with_config = theirs  # type: ignore[method-assign]
    uninstall()
    assert vars(Runnable)["with_config"] is theirs
    assert isinstance(fake().with_config(rate_limiter=limiter), RunnableBinding)  # type: ignore[arg-type]
    Runnable.with_config = ours
    uninstall()
    assert vars(Runnable)["with_config"] is original


def test_threads_may_install_at_once() -> None:
    before = replaceable()
    start = threading.Barrier(8)

    def change() -> None:
        start.wait()
        for _ in range(50):
            install()
            uninstall()

    threads = [threading.Thread(target=change) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replaceable() == before


# without install


async def in_an_agent(model: Any, config: Any) -> None:
    agent: Any = create_agent(model)
    agent.with_config(**config).invoke({"messages": [("user", "q")]})


async def in_a_stream(model: Any, config: Any) -> None:
    list(model.with_config(**config).stream("q"))


async def in_an_astream(model: Any, config: Any) -> None:
    [_ async for _ in model.with_config(**config).astream("q")]


async def in_a_batch(model: Any, config: Any) -> None:
    model.with_config(**config).batch(["q", "r"])


async def in_an_invoke(model: Any, config: Any) -> None:
    model.with_config(**config).invoke("q")


async def in_an_ainvoke(model: Any, config: Any) -> None:
    await model.with_config(**config).ainvoke("q")


async def around_a_chain(model: Any, config: Any) -> None:
    (PROMPT | model).with_config(**config).invoke({"question": "q"})


async def inside_a_chain(model: Any, config: Any) -> None:
    await (PROMPT | model.with_config(**config)).ainvoke({"question": "q"})


PLACES = [
    in_an_invoke,
    in_an_ainvoke,
    in_a_stream,
    in_an_astream,
    in_a_batch,
    in_an_agent,
    around_a_chain,
    inside_a_chain,
]


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize("call", PLACES)
async def test_without_install_a_warning_says_once_that_nothing_is_limited(
    call: Any, limiter: TokenRateLimiter
) -> None:
    with pytest.warns(RuntimeWarning, match="limits nothing here.*FakeListChatModel.*install") as heard:
        await call(fake(), {"rate_limiter": limiter})
    assert len(heard) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await call(fake(), {"rate_limiter": limiter})
    assert admitted(limiter) == (0, 0)


async def in_a_function_of_a_chain(model: Any, config: Any) -> None:
    (PROMPT | RunnableLambda(lambda asked: model.invoke(asked))).with_config(**config).invoke({"question": "q"})  # noqa: PLW0108


async def in_an_async_function(model: Any, config: Any) -> None:
    async def ask(question: str) -> Any:
        return [chunk async for chunk in model.astream(question)]

    await RunnableLambda(ask).with_config(**config).ainvoke("q")


async def in_an_agents_tool(model: Any, config: Any) -> None:
    @tool
    def look_up(question: str) -> str:
        """Ask a model."""
        return str(model.invoke(question).content)

    await RunnableLambda(lambda question: look_up.invoke({"question": question})).with_config(**config).ainvoke("q")


async def in_a_streaming_agent(model: Any, config: Any) -> None:
    agent: Any = create_agent(model)
    asked = {"messages": [("user", "q")]}
    [_ async for _ in agent.with_config(**config).astream(asked, stream_mode="messages")]


@pytest.mark.usefixtures("installed", "unwarned")
@pytest.mark.parametrize("core", [False, True], ids=["LangChain's form", "of the core"])
@pytest.mark.parametrize(
    "call", [*PLACES, in_a_function_of_a_chain, in_an_async_function, in_an_agents_tool, in_a_streaming_agent]
)
async def test_after_install_a_plain_model_is_limited_wherever_the_config_is_given(call: Any, core: bool) -> None:
    limiter: Any = TokenLimiter(**PLENTY) if core else TokenRateLimiter(**PLENTY)
    model = fake()
    await call(model, {"rate_limiter": limiter, "tags": ["t"]})
    assert admitted(limiter) == (2 if call is in_a_batch else 1, 0)
    assert model.rate_limiter is None
    assert not ignored._warned.is_set()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("made", [with_rate_limiter, lambda model, own: dispatch(model, rate_limiter=own)])
def test_what_an_agent_inherits_takes_the_place_of_no_limiter(made: Any, limiter: TokenRateLimiter) -> None:
    own = TokenRateLimiter(**PLENTY)
    agent: Any = create_agent(made(fake(), own))
    agent.with_config(rate_limiter=limiter).invoke({"messages": [("user", "q")]})
    assert (admitted(own), admitted(limiter)) == ((1, 0), (0, 0))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("nothing", [FakeListLLM(responses=["a"]), PROMPT | StrOutputParser()])
def test_after_install_a_limiter_that_would_limit_nothing_is_refused(nothing: Any, limiter: TokenRateLimiter) -> None:
    with pytest.raises(TypeError, match=r"completion model|no chat model"):
        nothing.with_config(rate_limiter=limiter)


@pytest.mark.usefixtures("unwarned")
def test_the_warning_points_at_the_call(limiter: TokenRateLimiter) -> None:
    model: Any = FakeListChatModel(responses=["a"])
    with pytest.warns(RuntimeWarning, match="limits nothing") as heard:
        model.invoke("q", config={"configurable": {"rate_limiter": limiter}})
    assert heard[0].filename == __file__


@pytest.mark.usefixtures("unwarned")
def test_nobody_is_warned_of_a_limiter_that_limits(limiter: TokenRateLimiter) -> None:
    dispatch(fake()).with_config(rate_limiter=limiter).invoke("q")
    with_rate_limiter(fake(), limiter).with_config(tags=["t"]).invoke("q")
    fields = fake().configurable_fields(rate_limiter=ConfigurableField("rate_limiter"))
    fields.with_config(configurable={"rate_limiter": limiter}).invoke("q")
    fields.with_config(configurable={"rate_limiter": None}).invoke("q")
    assert admitted(limiter) == (3, 0)
    assert not ignored._warned.is_set()


@pytest.mark.usefixtures("unwarned")
@pytest.mark.parametrize("call", PLACES)
async def test_a_dispatched_model_finds_the_limiter_of_its_config_wherever_it_was_given(
    call: Any, limiter: TokenRateLimiter
) -> None:
    model: Any = dispatch(fake())
    for of in (model, model.bind(stop=["x"])):
        await call(of, {"rate_limiter": limiter, "tags": ["t"]})
    assert admitted(limiter) == (4 if call is in_a_batch else 2, 0)
    assert model.rate_limiter is None
    assert not ignored._warned.is_set()


@pytest.mark.usefixtures("unwarned")
def test_a_limiter_of_a_config_replaces_a_models_own_and_an_inherited_one_does_not(limiter: TokenRateLimiter) -> None:
    own = TokenRateLimiter(**PLENTY)
    model: Any = dispatch(fake(), rate_limiter=own)
    model.bind(stop=["x"]).with_config(rate_limiter=limiter).invoke("q")
    assert (admitted(own), admitted(limiter)) == ((0, 0), (1, 0))
    around: Any = RunnableLambda(lambda asked: model.invoke(asked))  # noqa: PLW0108
    around.with_config(rate_limiter=limiter).invoke("q")
    assert (admitted(own), admitted(limiter)) == ((1, 0), (1, 0))
    assert not ignored._warned.is_set()
