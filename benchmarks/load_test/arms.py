"""The programs that are compared. An arm is whatever answers a question by way of an OpenAI-compatible endpoint.

To add one, write a context manager from `Target` to `Ask` and give it a line in `ARMS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.demo.provider import Quota

MAX_TOKENS = 64
RETRIES = 40
"""Retries until there is an answer, instead of the SDK's default of two: a failed call would not be in the times."""


@dataclass(frozen=True, slots=True)
class Target:
    """The endpoint that answers (``http://HOST:PORT/v1``), and the quota the program was told."""

    url: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class Answer:
    """``hit`` says that it came from a cache."""

    text: str
    hit: bool


Ask = Callable[[str], Awaitable[Answer]]
Opened = Callable[[Target], AbstractContextManager[Ask]]


def _model(target: Target, *, retries: int) -> Any:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        model="sim-large",
        base_url=target.url,
        api_key=SecretStr("none"),
        max_retries=retries,
        max_completion_tokens=MAX_TOKENS,
    )


def _asker(model: Any) -> Ask:
    from benchmarks.demo.langchain_arm import PROMPT

    chain = PROMPT | model

    async def ask(question: str) -> Answer:
        message = await chain.ainvoke({"question": question})
        # LangChain marks what its own caches give with a cost of nothing.
        free = (message.usage_metadata or {}).get("total_cost") == 0
        return Answer(str(message.text), free or "dispatch" in message.response_metadata)

    return ask


@contextmanager
def bare(target: Target) -> Iterator[Ask]:
    yield _asker(_model(target, retries=0))


@contextmanager
def retrying(target: Target) -> Iterator[Ask]:
    yield _asker(_model(target, retries=RETRIES))


@contextmanager
def exact(target: Target) -> Iterator[Ask]:
    """LangChain's own exact cache, and the limiter."""
    from langchain_core.caches import InMemoryCache

    from langchain_dispatch import dispatch

    yield _asker(dispatch(_model(target, retries=0), cache=InMemoryCache(), **_limited(target)))


@contextmanager
def full(target: Target) -> Iterator[Ask]:
    """`dispatch` with its defaults; the encoder is loaded before the first question."""
    from dispatch_core import SentenceTransformerEmbedder
    from langchain_dispatch import SemanticCache, dispatch

    encoder = SentenceTransformerEmbedder()
    encoder.load()
    encoder.embed(["warm up"])
    cache = SemanticCache(embedder=encoder)
    try:
        yield _asker(dispatch(_model(target, retries=0), cache=cache, **_limited(target)))
    finally:
        cache.close()


def _limited(target: Target) -> dict[str, Any]:
    from langchain_dispatch import RetryPolicy, TokenRateLimiter

    quota = target.quota
    # A trace is short: what a provider lets through at once after a quiet time counts, and a bare program takes it.
    limiter = TokenRateLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window, burst=quota.window)
    return {"rate_limiter": limiter, "retries": RetryPolicy()}


@dataclass(frozen=True, slots=True)
class Arm:
    """``limited`` arms promise never to provoke a 429; ``retrying`` ones answer everything."""

    title: str
    open: Opened
    limited: bool = False
    answers_all: bool = True


ARMS: Mapping[str, Arm] = {
    "bare": Arm("bare", bare, answers_all=False),
    "retries": Arm("bare + SDK retries", retrying),
    "exact": Arm("exact cache + limiter", exact, limited=True),
    "full": Arm("dispatched", full, limited=True),
}
"""In the order of the table. ``retries`` is what the others are measured by."""
