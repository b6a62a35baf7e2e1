"""Entries in any Redis ≥ 8.0, searched by the server in its vector sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dispatch_core._flow import Flow
from dispatch_core.errors import ConfigError, DimensionMismatch, StoreError
from dispatch_core.stores import _redis_rows as rows
from dispatch_core.stores._redis_store import RedisStore, Script
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_CHANGE, _SEARCH = Script.named("vectorset"), Script.named("vectorset_search")
_ABSENT = re.compile(r"unknown (redis |valkey )?command", re.IGNORECASE)
_MISMATCH = re.compile(r"dimension mismatch - got (\d+) but set has (\d+)")


class VectorSetStore(RedisStore):
    """Needs Redis ≥ 8.0, no module: `VADD` and `VSIM` belong to the server.

    Entries live in Redis as hashes, with the server's own expiry, their vectors as float32 in one vector set per
    scope. A search and the answers it finds are one round trip. Up to some hundred vectors of a scope are compared
    exactly; beyond, the server walks a graph, and a larger ``ef`` (candidates kept on the walk) makes it look at
    more of them. Nothing is kept in the process. All keys share one hash tag.

    A server with ``maxmemory`` should evict what expires (``volatile-lfu``), not ``allkeys-…``: a set is one key,
    and evicted at once. Elements whose entry is gone are removed when a search meets them, and a few with every
    put; a set ends with the last of its entries.

    Give ``url`` or a ``client`` (and an ``async_client`` if it must be a certain one); clients with
    ``decode_responses`` are refused. ``timeout`` is the deadline of a call in seconds, for clients made from a URL.
    Raises `ConfigError` at the first use if the server has no vector sets.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: redis.Redis | None = None,
        async_client: redis.asyncio.Redis | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
        ef: int = 64,
    ) -> None:
        if ef < 1:
            raise ConfigError(f"ef is a positive number of candidates, got {ef}")
        super().__init__(url, "vs", client=client, async_client=async_client, prefix=prefix, timeout=timeout)
        self._set_prefix = f"{self._own}v:"
        self._ef = ef

    def _search(self, vector: Vector, scope: str, limit: int, now: float) -> Flow[Sequence[Match]]:
        arguments = (_blob(vector), limit, rows.instant(now), self._entry_prefix, scope, self._ef)
        found = yield from self._run(_SEARCH, (self._set_prefix + scope,), arguments)
        return [
            Match(rows.entry(id.decode(), rows.as_map(row)), _cosine(score))
            for id, score, row in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]

    def _put(self, entry: Entry, vector: Vector | None) -> Flow[None]:
        # The set has the vector: the row does not keep it once more.
        row = rows.fields(entry, None)
        blob = b"" if vector is None else _blob(vector)
        change = self._change("put", entry.id, entry.scope, rows.milliseconds(entry.expires), blob, *row)
        yield from self._run(*change)

    def _change(self, op: str, id: str, *rest: Any) -> tuple[Script, tuple[str, ...], tuple[Any, ...]]:
        return _CHANGE, (self._entry_prefix + id,), (op, id, self._entry_prefix, self._set_prefix, *rest)

    def _run(self, script: Script, keys: tuple[str, ...], arguments: tuple[Any, ...]) -> Flow[Any]:
        try:
            return (yield from super()._run(script, keys, arguments))
        except StoreError as error:
            raise _named(error) from error.__cause__


def _named(error: StoreError) -> Exception:
    """What the server's error means here."""
    mismatch = _MISMATCH.search(str(error))
    if mismatch:
        return DimensionMismatch(expected=int(mismatch[2]), actual=int(mismatch[1]))
    if _ABSENT.search(str(error)):
        return ConfigError(
            "this server has no vector sets (VADD, VSIM): VectorSetStore needs Redis >= 8.0; "
            "RedisNearStore takes any Redis >= 6 or Valkey, RediSearchStore one with RediSearch"
        )
    return error


def _blob(vector: Vector) -> bytes:
    return np.asarray(vector, dtype="<f4").tobytes()


def _cosine(score: bytes) -> float:
    """The server's score is (1 + cosine) / 2."""
    return max(-1.0, min(1.0, 2.0 * float(score) - 1.0))
