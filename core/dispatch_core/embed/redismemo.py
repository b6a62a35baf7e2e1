"""Remember embeddings in Redis: what one process has embedded, none that shares the server pays for again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError
from dispatch_core.failopen import FailOpen
from dispatch_core.keys import digest
from dispatch_core.ports import Embedder
from dispatch_core.telemetry import Stats, Tally
from dispatch_core.types import Fit, Matrix, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

WEEK = 7 * 86_400.0
_LITTLE = np.dtype("<f4")
_TOLERANCE = 1e-3


class RedisMemoEmbedder:
    """The vectors of another embedder, kept for ``ttl`` seconds in Redis or Valkey: ``redis`` is a URL or a client.

    Worth it for an embedder that costs more than a round trip to the server: a remote one, or a large model. Put
    `MemoEmbedder` in front for the texts of the last minutes. Keys are digests of model and text: who reads the
    server learns neither. A Redis that fails is a miss and never an error; it is logged once, counted in `stats`, and
    left alone for a while. ``timeout`` is the longest wait for it in seconds, if ``redis`` is a URL. ``async_redis``
    is the client of asynchronous calls; without it one is made like the other for each event loop.
    """

    def __init__(
        self,
        wrapped: Embedder,
        redis: str | redis.Redis,
        *,
        async_redis: redis.asyncio.Redis | None = None,
        ttl: float | None = WEEK,
        prefix: str = "dispatch:vector",
        timeout: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from dispatch_core.stores._redis import Connections

        if ttl is not None and not 0.001 <= ttl < math.inf:
            raise ConfigError(f"ttl is None or a finite number of seconds, at least 0.001, got {ttl}")
        self.wrapped = wrapped
        url, client = (redis, None) if isinstance(redis, str) else (None, redis)
        self._connections = Connections(url, client, async_redis, timeout=timeout)
        self._prefix = prefix
        self._life = () if ttl is None else ("PX", round(ttl * 1000))
        self._tally = Tally()
        self._failopen = FailOpen(self._tally, enabled=True, clock=clock, part="the memo of embeddings")
        self._dims: int | None = None

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def dims(self) -> int:
        if self._dims is None:
            self._dims = self.wrapped.dims
        return self._dims

    @property
    def max_tokens(self) -> int:
        return self.wrapped.max_tokens

    def embed(self, texts: Sequence[str]) -> Matrix:
        return run(self._embed(texts))

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return await arun(self._embed(texts))

    def fit(self, text: str) -> Fit:
        return self.wrapped.fit(text)

    async def afit(self, text: str) -> Fit:
        return await self.wrapped.afit(text)

    def stats(self) -> Stats:
        """Texts that Redis knew (``exact_hits``) and did not (``misses``), and failures of Redis."""
        return self._tally.snapshot()

    def close(self) -> None:
        """Release the connections that were opened here."""
        self._connections.close()

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _embed(self, texts: Sequence[str]) -> Flow[Matrix]:
        dims = yield from self._length()
        wanted = list(dict.fromkeys(texts))
        known: dict[str, Vector] = {}
        if wanted:
            nothing: dict[str, Vector] = {}
            known.update((yield from self._failopen.safely(self._recall(wanted, dims), nothing)))
        unseen = [text for text in wanted if text not in known]
        self._tally.count("exact_hits", len(wanted) - len(unseen))
        self._tally.count("misses", len(unseen))
        if unseen:
            rows = yield from step(self.wrapped.embed, self.wrapped.aembed, unseen)
            fresh = dict(zip(unseen, rows, strict=True))
            known.update(fresh)
            yield from self._failopen.safely(self._remember(fresh), None)
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, dims), dtype=np.float32)

    def _length(self) -> Flow[int]:
        """To know its dimensions a model may have to be loaded: not on an event loop."""
        if self._dims is not None:
            return self._dims

        def ask() -> int:
            return self.dims

        async def aask() -> int:
            return await asyncio.to_thread(ask)

        return (yield from step(ask, aask))

    def _recall(self, texts: Sequence[str], dims: int) -> Flow[dict[str, Vector]]:
        [values] = yield from self._connections.send(("MGET", *map(self._key, texts)))
        found = zip(texts, (_vector(value, dims) for value in values), strict=True)
        return {text: vector for text, vector in found if vector is not None}

    def _remember(self, vectors: Mapping[str, Vector]) -> Flow[None]:
        rows = ((self._key(text), vector.astype(_LITTLE).tobytes()) for text, vector in vectors.items())
        yield from self._connections.send(*(("SET", key, value, *self._life) for key, value in rows))

    def _key(self, text: str) -> str:
        # One hash tag, so that a cluster takes many at once.
        return f"{{{self._prefix}}}:{digest('vector', self.model, text)}"


def _vector(value: bytes | None, dims: int) -> Vector | None:
    """None for what cannot be a vector of this model: somebody else's value, or half of one."""
    if value is None or len(value) != dims * _LITTLE.itemsize:
        return None
    vector: Vector = np.frombuffer(value, dtype=_LITTLE).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(vector))
    return vector if abs(length - 1.0) < _TOLERANCE else None
