"""Sleep until somebody wakes you: a thread by a bell of its own, a task through its own loop."""

from __future__ import annotations

import asyncio
import threading

_LONGEST = 86_400.0  # a thread cannot be told to wait for longer than a few hundred years, nor needs to


class Sleeper:
    """Free of locks, for the garbage collector may run any finaliser in the middle of everything.

    Who waits publishes how to be woken and then looks whether it was; who wakes says so and then looks how. So one
    of the two always sees the other. A wait may end early: look whether there is news, and wait again.
    """

    __slots__ = ("_bell", "_future", "_woken")

    def __init__(self) -> None:
        self._woken = False
        self._bell: threading.Lock | None = None
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> bool:
        """False if nobody can be woken any more: the event loop is closed."""
        self._woken = True
        bell, future = self._bell, self._future
        if bell is not None:
            _ring(bell)
        if future is not None:
            try:
                future.get_loop().call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                return False
        return True

    def wait(self, seconds: float) -> None:
        bell = self._bell = self._bell or _silent()
        if not self._woken:
            bell.acquire(timeout=max(0.0, min(seconds, _LONGEST)))
        self._woken = False
        bell.acquire(blocking=False)

    async def await_(self, seconds: float) -> None:
        future = self._future = asyncio.get_running_loop().create_future()
        try:
            if not self._woken:
                await asyncio.wait([future], timeout=min(seconds, _LONGEST))
        finally:
            self._future = None
            self._woken = False


def _silent() -> threading.Lock:
    """A bell is a bare lock that its sleeper cannot take until somebody rings. An event would have a lock inside, and
    a finaliser that runs while its sleeper lies down would wait for that forever."""
    bell = threading.Lock()
    bell.acquire()
    return bell


def _ring(bell: threading.Lock) -> None:
    try:
        bell.release()
    except RuntimeError:
        """It rings already."""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
