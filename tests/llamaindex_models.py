"""Models of LlamaIndex for the tests, whose HTTP clients are closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import openai
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    ChatMessage,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.llms import MockLLM
from llama_index.llms.openai import OpenAI
from pydantic import PrivateAttr

_made: list[Any] = []


def openai_at(url: str, kind: type[OpenAI] = OpenAI, **settings: Any) -> OpenAI:
    llm = kind(**{"model": "gpt-4o-mini", "api_base": url, "api_key": "k", "max_retries": 0, **settings})
    _made.append(llm)
    return llm


async def close_clients() -> None:
    while _made:
        llm = _made.pop()
        if llm._client is not None:
            llm._client.close()
        if llm._aclient is not None:
            await llm._aclient.close()


Ask = Callable[[Any, str], Awaitable[Any]]


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def hit(response: Any) -> Any:
    """How the cache says that it was asked: "exact", "semantic", "flight", or None."""
    return response.additional_kwargs.get("dispatch", {}).get("cache_hit")


async def chat(llm: Any, text: str) -> Any:
    return llm.chat(user(text))


async def achat(llm: Any, text: str) -> Any:
    return await llm.achat(user(text))


async def stream_chat(llm: Any, text: str) -> Any:
    return list(llm.stream_chat(user(text)))[-1]


async def astream_chat(llm: Any, text: str) -> Any:
    return [chunk async for chunk in await llm.astream_chat(user(text))][-1]


async def complete(llm: Any, text: str) -> Any:
    return llm.complete(text)


async def acomplete(llm: Any, text: str) -> Any:
    return await llm.acomplete(text)


async def stream_complete(llm: Any, text: str) -> Any:
    return list(llm.stream_complete(text))[-1]


async def astream_complete(llm: Any, text: str) -> Any:
    return [chunk async for chunk in await llm.astream_complete(text)][-1]


FORMS: list[Ask] = [
    *(chat, achat, stream_chat, astream_chat),
    *(complete, acomplete, stream_complete, astream_complete),
]


class Script:
    """What a model does before each answer, how often it fails, and how often it was asked."""

    def __init__(self, before: Callable[[], None], failures: Sequence[BaseException]) -> None:
        self.before, self.failures, self.asked = before, list(failures), 0

    def answer(self) -> str:
        self.asked += 1
        number = self.asked
        self.before()
        if self.failures:
            raise self.failures.pop(0)
        return f"answer {number}"


class Gated(MockLLM):
    """Numbers its answers. Its script is an object of its own: notes in its attributes would change what it is."""

    _script: Any = PrivateAttr(None)

    @classmethod
    def made(cls, before: Callable[[], None] = lambda: None, failures: Sequence[BaseException] = ()) -> Gated:
        llm = cls()
        llm._script = Script(before, failures)
        return llm

    @property
    def asked(self) -> int:
        return self._script.asked  # type: ignore[no-any-return]

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._script.answer())

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=await asyncio.to_thread(self._script.answer))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        def chunks() -> CompletionResponseGen:
            text = self._script.answer()
            for end in (3, len(text)):
                yield CompletionResponse(text=text[:end], delta=text[3:end] or text[:end])

        return chunks()

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        async def chunks() -> CompletionResponseAsyncGen:
            text = await asyncio.to_thread(self._script.answer)
            for end in (3, len(text)):
                yield CompletionResponse(text=text[:end], delta=text[3:end] or text[:end])

        return chunks()


class OpenAIEmbedding(BaseEmbedding):
    """As LlamaIndex's own integration of that name asks: through the SDK, and what it counts is dropped."""

    api_base: str
    reuse_client: bool = True
    _client: Any = PrivateAttr(None)
    _aclient: Any = PrivateAttr(None)

    def _get_client(self) -> openai.OpenAI:
        if self._client is None:
            self._client = openai.OpenAI(base_url=self.api_base, api_key="k", max_retries=0)
            _made.append(self)
        return self._client  # type: ignore[no-any-return]

    def _get_aclient(self) -> openai.AsyncOpenAI:
        if self._aclient is None:
            self._aclient = openai.AsyncOpenAI(base_url=self.api_base, api_key="k", max_retries=0)
            _made.append(self)
        return self._aclient  # type: ignore[no-any-return]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aget_text_embeddings([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        found = self._get_client().embeddings.create(input=texts, model=self.model_name, dimensions=8)
        return [one.embedding for one in found.data]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        found = await self._get_aclient().embeddings.create(input=texts, model=self.model_name, dimensions=8)
        return [one.embedding for one in found.data]


def embedding_at(url: str, **settings: Any) -> OpenAIEmbedding:
    return OpenAIEmbedding(**{"model_name": "text-embedding-3-small", "api_base": url, **settings})
