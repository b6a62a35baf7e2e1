"""Virtual time: an event loop that never waits, and the clocks of the `time` module made to agree with it.

When nothing is ready, time jumps to the next timer. Code that asks ``loop.time()``, ``asyncio.sleep``,
``time.monotonic`` or ``time.time`` cannot tell; twelve minutes of a thousand calls pass in about a second.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 600.0
"""Where ``loop.time()`` begins: a whole minute, and not zero, which some code takes for "never"."""

_EPOCH = 1_700_000_040.0
_TICK = 1e-9


class Stuck(RuntimeError):
    """Everybody sleeps, no timer is set: a wake-up was lost."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Single-threaded and without files: executors run in place, the self-pipe is never written."""

    def __init__(self) -> None:
        self.now = START
        super().__init__(_Jumping(self))

    def time(self) -> float:
        # Like any clock it never stands still, so that waits too short for a float come to an end.
        self.now += _TICK
        return self.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Threads know no virtual time: the work is done here and now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """Nobody sleeps in `select`, so nobody needs to be woken."""


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("everybody sleeps and nobody will ever wake them")
        self._loop.now += max(0.0, timeout)
        return []


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run to completion; inside, the `time` module tells virtual time, afterwards the real one again."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        with _clocks_of(loop):
            return runner.run(main)


def virtual_now() -> float:
    """The clock of the running loop, for objects that take a clock."""
    return asyncio.get_running_loop().time()


@contextmanager
def _clocks_of(loop: VirtualLoop) -> Iterator[None]:
    def wall() -> float:
        return _EPOCH + loop.time() - START

    replaced: dict[str, Callable[..., Any]] = {
        "monotonic": loop.time,
        "perf_counter": loop.time,
        "time": wall,
        "monotonic_ns": lambda: round(loop.time() * 1e9),
        "perf_counter_ns": lambda: round(loop.time() * 1e9),
        "time_ns": lambda: round(wall() * 1e9),
        "sleep": _no_sleep,
    }
    real = {name: getattr(time, name) for name in replaced}
    for name, function in replaced.items():
        setattr(time, name, _in_this_thread(function, real[name]))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(time, name, function)


def _in_this_thread(virtual: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
    """Other threads of the process live on; their looks at the clock must not move ours."""
    owner = threading.get_ident()

    def told(*args: Any) -> Any:
        return (virtual if threading.get_ident() == owner else real)(*args)

    return told


def _no_sleep(seconds: float) -> None:
    raise RuntimeError("a blocking sleep would stop virtual time")
