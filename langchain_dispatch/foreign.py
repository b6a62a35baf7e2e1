"""Streams through a cache of LangChain's or somebody else's: the entries that ``invoke`` has there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import Generation

from dispatch_core._flow import Flow, step
from langchain_dispatch.answers import Answer, encode


class ForeignExchange:
    """A question through any `BaseCache`, with the methods of `Exchange` that a stream needs. Nobody waits for its
    answer; what is cut off is not stored; what the cache raises is raised, as by LangChain."""

    __slots__ = ("_cache", "_key")

    def __init__(self, cache: BaseCache, prompt: str, llm_string: str) -> None:
        self._cache = cache
        self._key = prompt, llm_string

    def begin(self, *, whole: bool = True) -> Flow[Answer | None]:
        found = yield from step(self._cache.lookup, self._cache.alookup, *self._key)
        # Anything but a list is a miss to LangChain, too.
        if not isinstance(found, list) or not found:
            return None
        generations: list[Generation] = found
        message: Any = getattr(generations[0], "message", None) or AIMessage(generations[0].text)
        return Answer(vars(message), (), {}, {"cache_hit": "exact"}, lambda: generations)

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def finish(self, generations: Sequence[Generation], chunks: Sequence[AIMessageChunk] = ()) -> Flow[None]:
        if encode(generations) is not None:
            yield from step(self._cache.update, self._cache.aupdate, *self._key, list(generations))

    def reject(self) -> Flow[None]:
        """Nothing was begun."""
        yield from ()

    def abandon(self) -> None:
        """Nobody waits."""

    def stale(self) -> Answer | None:
        return None

    def refuse(self) -> None:
        """No cache of another can take a single answer back."""
