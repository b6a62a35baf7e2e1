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
from langchain_dispatch.answers import Answer
from langchain_dispatch.cache import SemanticCache
from langchain_dispatch.endings import broken_off
from langchain_dispatch.exchange import Exchange
from langchain_dispatch.foreign import ForeignExchange
from langchain_dispatch.observer import observer
from langchain_dispatch.pieces import merged
from langchain_dispatch.query import prompt_of
from langchain_dispatch.shape import shape_of, split_format

AnyExchange: TypeAlias = Exchange | ForeignExchange
Live: TypeAlias = Callable[[], Any]
"""The stream of the model itself: of messages, or of generations that hold them."""
Again: TypeAlias = Callable[[Answer], Any]
"""The stream of an answer from the cache, in the same form."""


def exchange_of(
    model: BaseChatModel, question: LanguageModelInput, stop: list[str] | None, arguments: dict[str, Any]
) -> AnyExchange | None:
    """The question of a stream under the key that ``invoke`` would use: one entry serves both. None without a
    cache."""
    cache = _cache_of(model)
    if cache is None:
        return None
    given, format = split_format(arguments)
    messages = _normalize_messages(model._convert_input(question).to_messages())
    llm_string = model._get_llm_string(stop=stop, **given)
    if not isinstance(cache, SemanticCache):
        return ForeignExchange(cache, prompt_of(messages), llm_string)
    return cache.exchange(messages, llm_string, shape_of(given, format))


def _cache_of(model: BaseChatModel) -> BaseCache | None:
    """The cache that this model's calls look into, as LangChain chooses it."""
    if model.cache is False:
        return None
    return model.cache if isinstance(model.cache, BaseCache) else get_llm_cache()


def stream(exchange: AnyExchange, live: Live, again: Again, *, blocks: bool = False) -> Iterator[Any]:
    heard: list[Any] = []
    try:
        answer = run(_begun(exchange))
        if answer is None:
            with closing(live()) as chunks:
                for chunk in chunks:
                    heard.append(chunk)
                    with exchange.reading():
                        yield chunk
            run(_finish(exchange, heard, blocks))
    except Exception:
        answer = None if heard else exchange.stale()
        if answer is None:
            raise
    finally:
        exchange.abandon()
    if answer is not None:
        yield from again(answer)


async def astream(exchange: AnyExchange, live: Live, again: Again, *, blocks: bool = False) -> AsyncIterator[Any]:
    heard: list[Any] = []
    try:
        answer = await arun(_begun(exchange))
        if answer is None:
            async with aclosing(live()) as chunks:
                async for chunk in chunks:
                    heard.append(chunk)
                    with exchange.reading():
                        yield chunk
            await arun(_finish(exchange, heard, blocks))
    except Exception:
        answer = None if heard else exchange.stale()
        if answer is None:
            raise
    finally:
        exchange.abandon()
    if answer is not None:
        async with aclosing(again(answer)) as chunks:
            async for chunk in chunks:
                yield chunk


def _begun(exchange: AnyExchange) -> Flow[Answer | None]:
    answer = yield from exchange.begin(whole=False)
    if answer is not None:
        observer().parsers.replayed(answer, exchange)
    return answer


def _finish(exchange: AnyExchange, heard: list[Any], blocks: bool) -> Flow[None]:
    """Store what was read to its end, unless it ended too soon; as ``blocks`` of content, if the model's answers are
    such and its chunks are not yet."""
    chunks = [_message(chunk) for chunk in heard]
    if not chunks:
        return
    whole = merged(chunks)
    if broken_off(whole.response_metadata):
        yield from exchange.reject()
        return
    message = message_chunk_to_message(whole)
    observer().parsers.answered(message, exchange)
    if blocks:
        metadata = {**message.response_metadata, "output_version": "v1"}
        message = message.model_copy(update={"content": message.content_blocks, "response_metadata": metadata})
        chunks = []
    yield from exchange.finish([ChatGeneration(message=message)], chunks)


def _message(chunk: Any) -> AIMessageChunk:
    if isinstance(chunk, AIMessageChunk):
        return chunk
    # What LangChain itself makes of a generation, on its way to those who listen.
    metadata = {**(chunk.generation_info or {}), **chunk.message.response_metadata}
    return chunk.message.model_copy(update={"response_metadata": metadata})  # type: ignore[no-any-return]
