"""An event loop whose clock jumps to the next timer: real asyncio code, waits of hours, no waiting."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """If everybody sleeps and no timer is set, a wake-up was lost: that is an error here, not a test that hangs."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        # Like any clock it never stands still, so that waits too short for a float come to an end.
        self._virtual += 1e-9
        return self._virtual

    def jump(self, seconds: float) -> None:
        self._virtual += seconds


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout is None:
            raise AssertionError("everybody sleeps and nobody will ever wake them")
        if not events and timeout:
            self._loop.jump(timeout)
        return events


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_now() -> float:
    """The clock of the running loop, for objects that take a clock."""
    return asyncio.get_running_loop().time()
