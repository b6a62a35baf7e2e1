"""Many who ask one dispatcher at once, and a model that counts its calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fakes import CountingEmbedder, FakeLimiter, FlakyStore

from dispatch_core import (
    Cost,
    Dispatcher,
    Match,
    MemoryStore,
    Query,
    SemanticCache,
    Threshold,
    Usage,
)
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.flight import Flight

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
COST = Cost(10, 20)
USAGE = Usage(3, 4)


def worded(number: int) -> Query:
    """The same question in other words."""
    return Query(f"{QUERY.text} x{number}")


class World:
    """A dispatcher and a model that counts its calls, of which each takes a second. It answers what shares words."""

    def __init__(self, *, store: Any = None, limiter: Any = None, policy: Any = None, **settings: Any) -> None:
        self.embedder = CountingEmbedder()
        self.store = MemoryStore() if store is None else store
        self.limiter = FakeLimiter() if limiter is None else limiter
        cache = SemanticCache(self.embedder, self.store, policy=policy or Threshold(0.5))
        self.dispatcher = Dispatcher(cache, self.limiter, **settings)
        self.calls = 0
        self.outcomes: list[bytes | Exception | None] = []
        self.otherwise: bytes | None = b"answer"
        self.call: Callable[[], None] = lambda: None
        self.acall: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(1)

    def ask(self, query: Query = QUERY, timeout: float | None = None) -> bytes | None:
        return run(self._ask(query, timeout))

    async def aask(self, query: Query = QUERY, timeout: float | None = None) -> bytes | None:
        return await arun(self._ask(query, timeout))

    def _ask(self, query: Query, timeout: float | None) -> Flow[bytes | None]:
        dispatcher = self.dispatcher
        found = yield from step(dispatcher.begin, dispatcher.abegin, query, COST, timeout=timeout)
        if isinstance(found, Match):
            return found.entry.payload
        try:
            self.calls += 1
            outcome = self.outcomes.pop(0) if self.outcomes else self.otherwise
            yield from step(self.call, self.acall)
            if isinstance(outcome, Exception):
                raise outcome
        except BaseException:
            dispatcher.abort(found)
            raise
        yield from step(dispatcher.finish, dispatcher.afinish, found, outcome, USAGE)
        return outcome

    @property
    def flights(self) -> list[Flight]:
        return list(self.dispatcher._flights._table.values())

    @property
    def waiting(self) -> int:
        return sum(len(flight.waiting) for flight in self.flights)

    def left_nothing(self) -> bool:
        flights = self.dispatcher._flights
        leases = self.dispatcher._leases
        assert leases is None or leases.flush(60)
        return not (
            flights._table or flights._block or flights._waits or self.dispatcher._keeping.under_way or leases
        )


def virtual_world(**settings: Any) -> World:
    # Bound to the loop, for the thread that writes asks for the time too.
    return World(**settings, clock=asyncio.get_running_loop().time)


def tasks_of(world: World, number: int, query: Query = QUERY) -> list[asyncio.Task[bytes | None]]:
    return [asyncio.create_task(world.aask(query)) for _ in range(number)]


async def settled() -> None:
    """Everybody has gone as far as he can at this moment."""
    for _ in range(20):
        await asyncio.sleep(0)


def until(there: Callable[[], bool]) -> None:
    """Whatever the test waits for will happen; a minute later it has failed."""
    give_up = time.monotonic() + 60
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0)


class SlowStore(FlakyStore):
    """Every call gives the loop a turn."""

    async def _off(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.1)
        return call(*args, **kwargs)
