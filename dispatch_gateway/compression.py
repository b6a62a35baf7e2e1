"""Shorter prompts: after the cache was asked, before tokens are reserved, and off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from dispatch_core._flow import Flow
from dispatch_core.compress import Careful, estimated
from dispatch_core.embed import MemoEmbedder
from dispatch_core.errors import ConfigError
from dispatch_core.messages import Compressed, Message
from dispatch_core.ports import Compressor, Embedder
from dispatch_gateway.config import ANY_MODEL
from dispatch_gateway.shortening import Shortening
from dispatch_gateway.wire import Call, Wire

_THREADS = 2
"""Compressors are Python, of which one thread runs at a time; the other one may wait for a model."""

_LONG = 32_768
"""Characters of a prompt that takes seconds. Such prompts wait for each other, and nobody else for them."""


class _Threads:
    """Where compressors work: in threads for all prompts but the long ones, which share one of their own."""

    def __init__(self) -> None:
        self._usual = ThreadPoolExecutor(_THREADS, thread_name_prefix="dispatch-compress")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="dispatch-compress-long")

    def of(self, messages: Sequence[Message]) -> ThreadPoolExecutor:
        length = sum(len(part.text) for message in messages for part in message.parts)
        return self._usual if length < _LONG else self._long

    def close(self) -> None:
        for threads in (self._usual, self._long):
            threads.shutdown(wait=False, cancel_futures=True)


class Compression:
    """The compressors of a gateway by the models whose prompts they shorten. Raises `ConfigError`, which names the
    path of what cannot work."""

    def __init__(self, settings: Mapping[str, Shortening | None], embedder: Embedder | None) -> None:
        self._threads = _Threads()
        # The sentences of what is retrieved come again and again.
        remembering = None if embedder is None else MemoEmbedder(embedder)
        self._shorteners: dict[str, Shortener | None] = {}
        for model, one in settings.items():
            try:
                made = None if one is None else Shortener(one.made(remembering), one.least, one.most, self._threads)
            except ConfigError as error:
                raise ConfigError(f"compression.{model}.{error}") from error
            self._shorteners[model] = made
        self._usual = self._shorteners.get(ANY_MODEL)

    @property
    def enabled(self) -> bool:
        return any(one is not None for one in self._shorteners.values())

    @property
    def paused(self) -> bool:
        """A compressor fails, and prompts are sent as they are."""
        return any(one is not None and one.paused for one in self._shorteners.values())

    def of(self, model: str) -> Shortener | None:
        return self._shorteners.get(model, self._usual)

    def close(self) -> None:
        self._threads.close()


class Shortener:
    """Makes prompts of ``least`` to ``most`` tokens shorter; what fails leaves them as they are."""

    def __init__(self, compressor: Compressor, least: int, most: int, threads: _Threads) -> None:
        self._careful = Careful(_Elsewhere(compressor, threads))
        self._sizes = range(least, most + 1)

    @property
    def paused(self) -> bool:
        return self._careful.paused

    def shortened(self, wire: Wire, call: Call) -> Flow[Call]:
        """The call to be made instead; the very same if there is nothing to leave out."""
        if estimated(call.prompt) not in self._sizes:
            return call
        whole = wire.messages(call)
        left = (yield from self._careful.shortened(whole)) if whole else whole
        return call if left == whole else wire.shortened(call, left)


class _Elsewhere:
    """A compressor that keeps no event loop from its work."""

    def __init__(self, wrapped: Compressor, threads: _Threads) -> None:
        self._wrapped = wrapped
        self._threads = threads

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return self._wrapped.compress(messages, budget)

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads.of(messages), self._wrapped.compress, messages, budget)
