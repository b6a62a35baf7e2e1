"""The asynchronous half of stores whose work is synchronous by nature."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ParamSpec, TypeVar

from dispatch_core.types import Entry, Match, Vector

P = ParamSpec("P")
T = TypeVar("T")


class SyncStore(ABC):
    """Gives a synchronous store its `a` methods, all by one rule: `_off`.

    The rule here is to call directly, right for work of microseconds; a store that touches a disk overrides it.
    """

    async def _off(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return call(*args, **kwargs)

    @abstractmethod
    def get(self, id: str, *, now: float) -> Entry | None: ...
    @abstractmethod
    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]: ...
    @abstractmethod
    def put(self, entry: Entry, vector: Vector | None) -> None: ...
    @abstractmethod
    def delete(self, id: str) -> None: ...
    @abstractmethod
    def touch(self, id: str, *, expires: float | None, now: float) -> None: ...
    @abstractmethod
    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int: ...
    @abstractmethod
    def close(self) -> None: ...

    async def aget(self, id: str, *, now: float) -> Entry | None:
        return await self._off(self.get, id, now=now)

    async def asearch(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return await self._off(self.search, vector, scope=scope, limit=limit, now=now)

    async def aput(self, entry: Entry, vector: Vector | None) -> None:
        await self._off(self.put, entry, vector)

    async def adelete(self, id: str) -> None:
        await self._off(self.delete, id)

    async def atouch(self, id: str, *, expires: float | None, now: float) -> None:
        await self._off(self.touch, id, expires=expires, now=now)

    async def aclear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        return await self._off(self.clear, namespace, tags=tags)

    async def aclose(self) -> None:
        await self._off(self.close)


class BlockingStore(SyncStore):
    """A synchronous store whose calls may wait for a disk: they run in a worker thread."""

    async def _off(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(call, *args, **kwargs)
