"""One call in a limiter's queue, and how to wake it: a thread by an event, a task through its own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from dispatch_core.limit.bucket import Charge

_LONGEST = 86_400.0  # a thread cannot be told to wait for longer than a few hundred years, nor needs to


class Waiter:
    """Free of locks, for the garbage collector may run any finaliser in the middle of everything.

    Who waits publishes how to be woken and then looks whether it was; who wakes says so and then looks how. So one
    of the two always sees the other.
    """

    __slots__ = ("_event", "_future", "_woken", "ahead", "amounts", "charge", "leads")

    def __init__(self, amounts: Sequence[float]) -> None:
        self.amounts = amounts
        self.charge: Charge | None = None
        self.leads = False
        self.ahead: Sequence[float] = ()
        self._woken = False
        self._event: threading.Event | None = None
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> bool:
        """False if nobody can be woken any more: the event loop is closed."""
        self._woken = True
        event, future = self._event, self._future
        if event is not None:
            event.set()
        if future is not None:
            try:
                future.get_loop().call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                return False
        return True

    def wait(self, seconds: float) -> None:
        event = self._event = self._event or threading.Event()
        if not self._woken:
            event.wait(min(seconds, _LONGEST))
        self._woken = False
        event.clear()

    async def await_(self, seconds: float) -> None:
        future = self._future = asyncio.get_running_loop().create_future()
        try:
            if not self._woken:
                await asyncio.wait([future], timeout=min(seconds, _LONGEST))
        finally:
            self._future = None
            self._woken = False


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
