"""The LangChain program: a prompt, a model, nothing else. Dispatching adds three lines, marked below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openai import DefaultAsyncHttpxClient
from pydantic import SecretStr

from benchmarks.demo.provider import Provider
from benchmarks.demo.replay import Ask
from dispatch_core import Embedder
from langchain_dispatch import SemanticCache, TokenRateLimiter

PROMPT = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "You answer customers of Lumen Cycles, a shop for city bikes and e-bikes, in one or two sentences.",
        ),
        ("human", "{question}"),
    ]
)


def _asker(model: ChatOpenAI) -> Ask:
    chain = PROMPT | model

    async def ask(question: str) -> str:
        return str((await chain.ainvoke({"question": question})).text)

    return ask


@asynccontextmanager
async def bare(provider: Provider) -> AsyncIterator[Ask]:
    """With the usual remedy, retries until there is an answer: 40 instead of the SDK's default of two."""
    async with _connected(provider) as sdk:
        yield _asker(ChatOpenAI(**sdk, max_retries=40))


@asynccontextmanager
async def dispatched(provider: Provider, embedder: Embedder) -> AsyncIterator[Ask]:
    quota = provider.quota
    cache = SemanticCache(embedder=embedder)
    set_llm_cache(cache)  # 1
    limiter = TokenRateLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window)  # 2
    try:
        async with _connected(provider) as sdk:
            model = ChatOpenAI(
                **sdk,
                rate_limiter=limiter,  # 3
                max_retries=0,
            )
            yield _asker(model)
    finally:
        set_llm_cache(None)
        cache.close()


@asynccontextmanager
async def _connected(provider: Provider) -> AsyncIterator[dict[str, Any]]:
    """Where to call and with what: connections that end with the loop of the arm, not in the next one."""
    async with DefaultAsyncHttpxClient() as client:
        yield {
            "model": "sim-large",
            "base_url": provider.url,
            "api_key": SecretStr("none"),
            "http_async_client": client,
        }
