"""Every way to call a model, under every way to limit it: reservations, tokens, nothing left open, the same trace.

All cells exist. `cancelled_while_waiting` alone has no trace to compare with: a model without a limiter never waits.
An agent stands for the model where the limiter is a middleware's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableParallel
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langchain_models import PLENTY, QUESTION, model_of
from pydantic import BaseModel

from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import TokenRateLimiter, dispatch, with_rate_limiter
from langchain_dispatch.middleware import DispatchMiddleware

WAYS = ["plain model", "with_rate_limiter", "dispatch", "middleware"]
NOWHERE = "http://127.0.0.1:9/v1"


class Traced(BaseTracer):
    """The runs that a tracer would create and update, and the tokens of the answers."""

    run_inline = True

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.tokens = 0

    def _persist_run(self, run: Any) -> None:
        """Nowhere."""

    def _on_run_create(self, run: Any) -> None:
        self.calls["create", run.run_type, run.name] += 1

    def _on_run_update(self, run: Any) -> None:
        self.calls["update", run.run_type, run.name] += 1

    def on_llm_end(self, response: Any, **kwargs: Any) -> Any:
        self.tokens += response.generations[0][0].message.usage_metadata["total_tokens"]
        return super().on_llm_end(response, **kwargs)


class Choosing(AgentMiddleware[Any, Any, Any]):
    """The simulated provider calls a tool when it must: at the agent's first question."""

    def _chosen(self, request: Any) -> Any:
        first = isinstance(request.messages[-1], HumanMessage)
        return request.override(tool_choice=request.tools[0].name) if first and request.tools else request

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self._chosen(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self._chosen(request))


class Passing(AgentMiddleware[Any, Any, Any]):
    """What an agent has in the place of ours when nothing is limited; traced under its name."""

    name = "DispatchMiddleware"

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


@dataclass
class Case:
    """One cell. Without a limiter it is the plain form to compare with."""

    way: str
    url: str
    limiter: TokenRateLimiter | None
    tracer: Traced = field(default_factory=Traced)

    @property
    def config(self) -> RunnableConfig:
        return {"callbacks": [self.tracer]}

    @property
    def how_to_stream(self) -> dict[str, Any]:
        return {"stream_mode": "messages"} if self.way == "middleware" else {}

    def asking(self, question: str = QUESTION) -> Any:
        return {"messages": [("user", question)]} if self.way == "middleware" else question

    def model(self, url: str | None = None) -> Any:
        """A chat model with the limiter, for the callers of models that are not the agent's."""
        plain = model_of(self, base_url=url or self.url)  # type: ignore[arg-type]
        if self.limiter is None:
            return plain
        if self.way == "plain model":
            return plain.model_copy(update={"rate_limiter": self.limiter})
        limited = with_rate_limiter if self.way == "with_rate_limiter" else lambda m, r: dispatch(m, rate_limiter=r)
        return limited(plain, self.limiter)

    def agent(self, *tools: Any, url: str | None = None, **settings: Any) -> Any:
        middleware: list[Any] = [Choosing()]
        model = self.model(url)
        if self.way == "middleware":
            model = model_of(self, base_url=url or self.url)  # type: ignore[arg-type]
            ours = Passing() if self.limiter is None else DispatchMiddleware(rate_limiter=self.limiter)
            middleware.append(ours)
        return create_agent(model, tools=list(tools), middleware=middleware, **settings)

    def made(self, build: Callable[[Any], Any] = lambda model: model, url: str | None = None) -> Any:
        """What is built of a model, with the limiter inside; of an agent where the limiter is a middleware's."""
        if self.way == "middleware":
            return build(self.agent(url=url))
        if self.way == "with_rate_limiter" and self.limiter is not None:
            return with_rate_limiter(build(model_of(self, base_url=url or self.url)), self.limiter)  # type: ignore[arg-type]
        return build(self.model(url))


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


class City(BaseModel):
    """A city."""

    name: str


Row = Callable[[Case], Awaitable[None]]
ROWS: dict[str, tuple[Row, int]] = {}
"""The rows by name, with the reservations that each needs."""


def row(reservations: int) -> Callable[[Row], Row]:
    def named(function: Row) -> Row:
        ROWS[function.__name__] = function, reservations
        return function

    return named


def sync_row(reservations: int) -> Callable[[Callable[[Case], None]], Row]:
    """A row that runs in a thread without an event loop."""

    def named(function: Callable[[Case], None]) -> Row:
        async def threaded(case: Case) -> None:
            await asyncio.to_thread(function, case)

        ROWS[function.__name__] = threaded, reservations
        return threaded

    return named


@sync_row(1)
def invoke(case: Case) -> None:
    case.made().invoke(case.asking(), case.config)


@row(1)
async def ainvoke(case: Case) -> None:
    await case.made().ainvoke(case.asking(), case.config)


@sync_row(1)
def stream(case: Case) -> None:
    assert len(list(case.made().stream(case.asking(), case.config, **case.how_to_stream))) > 1


@row(1)
async def astream(case: Case) -> None:
    chunks = [chunk async for chunk in case.made().astream(case.asking(), case.config, **case.how_to_stream)]
    assert len(chunks) > 1


@sync_row(3)
def batch(case: Case) -> None:
    case.made().batch([case.asking(f"question {n}") for n in range(3)], case.config)


@row(3)
async def abatch(case: Case) -> None:
    await case.made().abatch([case.asking(f"question {n}") for n in range(3)], case.config)


@row(1)
async def astream_events_v2(case: Case) -> None:
    events = case.made().astream_events(case.asking(), case.config, version="v2")
    assert "on_chat_model_stream" in {event["event"] async for event in events}


@sync_row(1)
def stream_events_v3(case: Case) -> None:
    told = case.made().stream_events(case.asking(), case.config, version="v3")
    assert len(list(told)) > 1


@row(1)
async def astream_events_v3(case: Case) -> None:
    told = await case.made().astream_events(case.asking(), case.config, version="v3")
    assert len([event async for event in told]) > 1
    if case.way != "middleware":
        await told.aclose()


@row(1)
async def bind_tools(case: Case) -> None:
    if case.way == "middleware":
        bound = case.agent(weather)
        asked = {"messages": [("user", QUESTION), ("ai", "Which city?")]}
        await bound.ainvoke(asked, case.config)
    else:
        await case.made(lambda model: model.bind_tools([weather])).ainvoke(QUESTION, case.config)


@sync_row(1)
def with_structured_output(case: Case) -> None:
    if case.way == "middleware":
        answer = case.agent(response_format=City).invoke(case.asking("Ghent in JSON"), case.config)
        assert isinstance(answer["structured_response"], City)
    else:
        made = case.made(lambda model: model.with_structured_output(City))
        assert isinstance(made.invoke("Ghent in JSON", case.config), City)


@row(2)
async def agent_with_a_tool(case: Case) -> None:
    asked = {"messages": [("user", "Weather in Ghent?")]}
    answer = await case.agent(weather).ainvoke(asked, case.config)
    assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]


@row(2)
async def with_retry(case: Case) -> None:
    made = case.made(lambda model: model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False), NOWHERE)
    with pytest.raises(openai.APIConnectionError):
        await made.ainvoke(case.asking(), case.config)


@row(2)
async def with_fallbacks(case: Case) -> None:
    good = case.made()
    await case.made(lambda model: model.with_fallbacks([good]), NOWHERE).ainvoke(case.asking(), case.config)


@sync_row(2)
def parallel(case: Case) -> None:
    case.made(lambda model: RunnableParallel(a=model, b=model)).invoke(case.asking(), case.config)


@sync_row(3)
def model_call_inside_a_tool(case: Case) -> None:
    inner = case.model()

    @tool
    def look_up(question: str) -> str:
        """Ask a model."""
        return str(inner.invoke(question).content)

    case.agent(look_up).invoke({"messages": [("user", QUESTION)]}, case.config)


@row(1)
async def cancelled_while_waiting(case: Case) -> None:
    made, limiter = case.made(), case.limiter
    assert limiter is not None
    await made.ainvoke(case.asking("first"), case.config)
    calling = asyncio.ensure_future(made.ainvoke(case.asking("second"), case.config))
    while not limiter.stats().waiting:
        await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert limiter.stats().waiting == 0


@row(1)
async def cancelled_in_flight(case: Case) -> None:
    with Simulator(SimulatorConfig(latency=1000)) as slow:
        calling = asyncio.ensure_future(case.made(url=slow.url).ainvoke(case.asking(), case.config))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.001)
        assert case.limiter is None or case.limiter.stats().open == 1
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


@row(1)
async def error(case: Case) -> None:
    with pytest.raises(openai.APIConnectionError):
        await case.made(url=NOWHERE).ainvoke(case.asking(), case.config)


@sync_row(12)
def thread_pool(case: Case) -> None:
    made = case.made()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: made.invoke(case.asking(f"question {n}"), case.config), range(12)))


@row(1)
async def sync_call_inside_a_running_loop(case: Case) -> None:
    case.made().invoke(case.asking(), case.config)


BROKEN_OFF = {"with_retry", "with_fallbacks", "cancelled_in_flight", "error"}
"""Where calls fail that were sent: they keep what was estimated."""
WITHOUT_A_PLAIN_FORM = {"cancelled_while_waiting"}


if not hasattr(BaseChatModel, "stream_events"):
    # Releases of LangChain before 1.4 have no events of version 3.
    ROWS = {name: made for name, made in ROWS.items() if not name.endswith("events_v3")}


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ROWS)
async def test_cell(name: str, way: str, provider: Simulator) -> None:
    call, reservations = ROWS[name]
    waits = name == "cancelled_while_waiting"
    limiter = TokenRateLimiter(rpm=60, window=600, burst=0.001) if waits else TokenRateLimiter(**PLENTY)
    case = Case(way, provider.url, limiter)
    await call(case)
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting) == (reservations, 0, 0)
    if name in BROKEN_OFF:
        assert stats.tokens_used > case.tracer.tokens
    elif not waits:
        assert stats.tokens_used == case.tracer.tokens > 0
    if name not in WITHOUT_A_PLAIN_FORM:
        plain = Case(way, provider.url, None)
        await call(plain)
        assert case.tracer.calls == plain.tracer.calls
        assert case.tracer.calls["create", "chat_model", "ChatOpenAI"] == reservations
