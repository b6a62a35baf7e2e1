"""LangChain models against a provider over HTTP, what hears of their calls, and what they may leave behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field

from dispatch_core.simulate import Simulator
from langchain_dispatch import SemanticCache, TokenRateLimiter

PLENTY = {"rpm": 60_000.0, "tpm": 60_000_000.0}
QUESTION = "How do I bake bread?"


def model_of(provider: Simulator, **settings: Any) -> ChatOpenAI:
    given = {"model": "sim", "base_url": provider.url, "api_key": "k", "max_retries": 0, "stream_usage": True}
    return ChatOpenAI(**{**given, **settings})


async def streamed(model: Any, form: str, question: Any = QUESTION, **kwargs: Any) -> list[AIMessageChunk]:
    if form == "async":
        return [chunk async for chunk in model.astream(question, **kwargs)]
    return list(model.stream(question, **kwargs))


async def asked(model: Any, form: str, question: Any = QUESTION, **kwargs: Any) -> Any:
    return await model.ainvoke(question, **kwargs) if form == "async" else model.invoke(question, **kwargs)


def summed(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def waiting(cache: SemanticCache) -> int:
    """How many wait for the answer to a question under way."""
    return sum(len(flight.waiting) for flight in list(cache.dispatcher._flights._table.values()))


def left_nothing(cache: SemanticCache, limiter: TokenRateLimiter | None = None) -> bool:
    flights = cache.dispatcher._flights
    cache.flush()
    under_way = flights._table or flights._block or flights._waits or cache.dispatcher._keeping.under_way
    return not under_way and (limiter is None or (limiter.stats().open, limiter.stats().waiting) == (0, 0))


class Heard(BaseCallbackHandler):
    """The names of the events of model calls, in order, each run of tokens once."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[str] = []
        self.tokens = 0
        self.answers: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens += 1
        if self.events[-1] != "tokens":
            self.events.append("tokens")

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.events.append("end")
        self.answers.append(response.generations[0][0].text)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append("error")


class Scripted(FakeListChatModel):
    """Answers ``answer <number of the call>``, does ``before`` first, and fails as often as it is told to."""

    responses: list[str] = Field(default_factory=list)
    calls: list[str] = Field(default_factory=list)
    before: Callable[[], object] = lambda: None
    failures: list[BaseException] = Field(default_factory=list)
    lock: Any = Field(default_factory=threading.Lock)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        text = self._said(messages)
        self.before()
        self._fail()
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        text = self._said(messages)
        yield ChatGenerationChunk(message=AIMessageChunk(text[:3]))
        self.before()
        self._fail()
        yield ChatGenerationChunk(message=AIMessageChunk(text[3:]))

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return await super(FakeListChatModel, self)._agenerate(*args, **kwargs)

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        async for chunk in super(FakeListChatModel, self)._astream(*args, **kwargs):
            yield chunk

    def _said(self, messages: list[BaseMessage]) -> str:
        with self.lock:
            self.calls.append(str(messages[-1].content))
            return f"answer {len(self.calls)}"

    def _fail(self) -> None:
        with self.lock:
            error = self.failures.pop(0) if self.failures else None
        if error is not None:
            raise error
