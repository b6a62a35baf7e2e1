"""The programs that are compared. An arm is whatever answers a question by way of an OpenAI-compatible endpoint.

To add one, write a context manager from `Target` to `Ask` and give it a line in `ARMS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.demo.provider import Quota
from benchmarks.load_test.context import contexts, sentences

MAX_TOKENS = 64
RETRIES = 1000
"""Retries until there is an answer, instead of the SDK's default of two: a failed call would not be in the times, and
40 are too few for 3 % of the questions."""
SHARE = 0.5
"""Of its tokens, what a compressed prompt keeps; `Extractive`'s default."""


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


def _model(url: str, *, retries: int, **more: Any) -> Any:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        model="sim-large",
        base_url=url,
        api_key=SecretStr("none"),
        max_retries=retries,
        max_completion_tokens=MAX_TOKENS,
        **more,
    )


def _asker(model: Any) -> Ask:
    from langchain_core.prompts import ChatPromptTemplate

    instruction = (
        "You answer customers of Lumen Cycles, a shop for city bikes and e-bikes, in one or two sentences, by what "
        "stands here:\n<context>\n{context}\n</context>"
    )
    chain = ChatPromptTemplate.from_messages([("system", instruction), ("human", "{question}")]) | model
    context_of = contexts()

    async def ask(question: str) -> Answer:
        message = await chain.ainvoke({"context": context_of(question), "question": question})
        return Answer(str(message.text), _from_cache(message))

    return ask


def _from_cache(message: Any) -> bool:
    # LangChain marks what its own caches give with a cost of nothing; a gateway says it in a header.
    metadata = message.response_metadata
    told = metadata.get("headers", {}).get("cache-status", "")
    return (message.usage_metadata or {}).get("total_cost") == 0 or "dispatch" in metadata or "; hit" in told


@contextmanager
def bare(target: Target) -> Iterator[Ask]:
    yield _asker(_model(target.url, retries=0))


@contextmanager
def retrying(target: Target) -> Iterator[Ask]:
    yield _asker(_model(target.url, retries=RETRIES))


@contextmanager
def exact(target: Target) -> Iterator[Ask]:
    """LangChain's own exact cache, and the limiter."""
    from langchain_core.caches import InMemoryCache

    from langchain_dispatch import dispatch

    yield _asker(dispatch(_model(target.url, retries=0), cache=InMemoryCache(), **_limited(target)))


@contextmanager
def uncompressed(target: Target) -> Iterator[Ask]:
    """`dispatch` with its defaults; the encoder is loaded before the first question."""
    with _dispatched(target) as ask:
        yield ask


@contextmanager
def full(target: Target) -> Iterator[Ask]:
    """`dispatch` with a compressor."""
    with _dispatched(target, share=SHARE) as ask:
        yield ask


@contextmanager
def _dispatched(target: Target, share: float | None = None) -> Iterator[Ask]:
    from dispatch_core import Extractive, MemoEmbedder, default_embedder
    from langchain_dispatch import SemanticCache, dispatch

    # One memo for both: a question is embedded once, and what the shop has to say too, as for retrieval.
    embedder = MemoEmbedder(default_embedder())
    embedder.embed(["warm up"] if share is None else sentences())
    cache = SemanticCache(embedder=embedder)
    compressor = None if share is None else Extractive(embedder, share=share)
    try:
        yield _asker(dispatch(_model(target.url, retries=0), cache=cache, compressor=compressor, **_limited(target)))
    finally:
        cache.close()


@contextmanager
def through_gateway(target: Target) -> Iterator[Ask]:
    """The bare program with another ``base_url``."""
    from benchmarks.gateway_process import gateway

    quota = target.quota
    limits = {"rpm": quota.rpm, "tpm": quota.tpm, "window": quota.window, "burst": quota.window}
    deployment = {"base_url": target.url, "api_key": "none", "limits": limits}
    shorter = {"steps": [{"extractive": {"share": SHARE}}]}
    with gateway({"models": {"*": [deployment]}, "compression": {"*": shorter}}) as (url, _):
        yield _asker(_model(url, retries=0, include_response_headers=True))


def _limited(target: Target) -> dict[str, Any]:
    from langchain_dispatch import RetryPolicy, TokenRateLimiter

    quota = target.quota
    # A trace is short: what a provider lets through at once after a quiet time counts, and a bare program takes it.
    limiter = TokenRateLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window, burst=quota.window)
    return {"rate_limiter": limiter, "retries": RetryPolicy()}


@dataclass(frozen=True, slots=True)
class Arm:
    """``limited`` arms promise never to provoke a 429; ``answers_all`` ones answer everything."""

    title: str
    open: Opened
    limited: bool = False
    answers_all: bool = True


ARMS: Mapping[str, Arm] = {
    "bare": Arm("bare", bare, answers_all=False),
    "retries": Arm("bare + SDK retries", retrying),
    "exact": Arm("exact cache + limiter", exact, limited=True),
    "uncompressed": Arm("semantic cache + limiter", uncompressed, limited=True),
    "full": Arm("dispatched", full, limited=True),
    "gateway": Arm("dispatched by a gateway", through_gateway, limited=True),
}
"""In the order of the table. ``retries`` is what the others are measured by.

``uncompressed`` is ``full`` without its compressor: the difference is what compression does.
"""
