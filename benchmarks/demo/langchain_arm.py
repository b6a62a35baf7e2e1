"""The LangChain program: a prompt, a model, nothing else. Dispatching adds three lines, marked below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
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


@contextmanager
def bare(provider: Provider) -> Iterator[Ask]:
    """With the usual remedy, retries until there is an answer: 40 instead of the SDK's default of two."""
    yield _asker(ChatOpenAI(model="sim-large", base_url=provider.url, api_key=SecretStr("none"), max_retries=40))


@contextmanager
def dispatched(provider: Provider, embedder: Embedder) -> Iterator[Ask]:
    quota = provider.quota
    cache = SemanticCache(embedder=embedder)
    set_llm_cache(cache)  # 1
    limiter = TokenRateLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window)  # 2
    model = ChatOpenAI(
        model="sim-large",
        base_url=provider.url,
        api_key=SecretStr("none"),
        rate_limiter=limiter,  # 3
        max_retries=0,
    )
    try:
        yield _asker(model)
    finally:
        set_llm_cache(None)
        cache.close()
