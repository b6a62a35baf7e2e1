"""Streams through the cache, of which LangChain's own go past it: replayed on a hit, recorded on a miss.

An answer is stored when it was read to its end; one that was closed, cancelled, broken off or cut off is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any, TypeAlias

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.messages import AIMessageChunk, message_chunk_to_message
from langchain_core.outputs import ChatGeneration

from dispatch_core._flow import Flow, arun, run
from langchain_dispatch.cache import SemanticCache
from langchain_dispatch.endings import broken_off
from langchain_dispatch.exchange import Exchange
from langchain_dispatch.pieces import merged
from langchain_dispatch.query import prompt_of
from langchain_dispatch.replay import replaying
from langchain_dispatch.shape import shape_of, split_format

Plain: TypeAlias = Callable[[BaseChatModel], Any]
"""LangChain's own stream of the same question, by this model."""


def exchange_of(
    model: BaseChatModel,
    question: LanguageModelInput,
    stop: list[str] | None,
    arguments: dict[str, Any],
    *,
    asynchronous: bool,
) -> Exchange | None:
    """The question of a stream under the key that ``invoke`` would use: one entry serves both.

    None without a semantic cache, and where LangChain does not stream: that is an invoke, with its own lookup.
    """
    cache = _cache_of(model)
    if cache is None or not model._should_stream(async_api=asynchronous, **{**arguments, "stream": True}):
        return None
    given, format = split_format(arguments)
    messages = _normalize_messages(model._convert_input(question).to_messages())
    llm_string = model._get_llm_string(stop=stop, **given)
    return cache.exchange(prompt_of(messages), llm_string, shape_of(given, format))


def _cache_of(model: BaseChatModel) -> SemanticCache | None:
    """The cache that this model's calls look into, as LangChain chooses it."""
    if model.cache is False:
        return None
    cache = model.cache if isinstance(model.cache, BaseCache) else get_llm_cache()
    return cache if isinstance(cache, SemanticCache) else None


def stream(exchange: Exchange, model: BaseChatModel, plain: Plain, size: int | None) -> Iterator[AIMessageChunk]:
    chunks: list[AIMessageChunk] = []
    try:
        answer = run(exchange.begin())
        if answer is None:
            with closing(plain(model)) as live:
                for chunk in live:
                    chunks.append(chunk)
                    yield chunk
            run(_finish(exchange, chunks))
    except Exception:
        answer = None if chunks else exchange.stale()
        if answer is None:
            raise
    finally:
        exchange.abandon()
    if answer is not None:
        yield from plain(replaying(model, answer, size))


async def astream(
    exchange: Exchange, model: BaseChatModel, plain: Plain, size: int | None
) -> AsyncIterator[AIMessageChunk]:
    chunks: list[AIMessageChunk] = []
    try:
        answer = await arun(exchange.begin())
        if answer is None:
            async with aclosing(plain(model)) as live:
                async for chunk in live:
                    chunks.append(chunk)
                    yield chunk
            await arun(_finish(exchange, chunks))
    except Exception:
        answer = None if chunks else exchange.stale()
        if answer is None:
            raise
    finally:
        exchange.abandon()
    if answer is not None:
        async with aclosing(plain(replaying(model, answer, size))) as again:
            async for chunk in again:
                yield chunk


def _finish(exchange: Exchange, chunks: list[AIMessageChunk]) -> Flow[None]:
    """Store what was read to its end, unless it ended too soon."""
    if not chunks:
        return
    whole = merged(chunks)
    if broken_off(whole.response_metadata):
        yield from exchange.reject()
        return
    message = message_chunk_to_message(whole)
    yield from exchange.finish([ChatGeneration(message=message)], chunks)
