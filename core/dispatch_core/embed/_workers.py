"""Threads that run blocking calls for event loops, at half the price of an executor's.

What lies between is one queue on the way in and one callback on the way out: little enough that the worker, once
awake, need not wait for the thread that woke it to let go of the interpreter.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class _Call(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def make(self, idle: deque[None]) -> None:
        """Nothing that nobody waits for."""
        result = error = None
        if not self.future.cancelled():
            try:
                result = self.call(*self.args, **self.kwargs)
            except BaseException as raised:
                error = raised
        # Before it is told: who asks again then needs no other worker.
        idle.append(None)
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)


_Todo: TypeAlias = "SimpleQueue[_Call | None]"
_Idle: TypeAlias = "deque[None]"
"""One place for each worker that waits: taking one is one step for all threads."""


class Workers:
    """At most ``most`` threads for any number of event loops; one more is started when all others are busy.

    They end with this object, or when the interpreter does.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._todo: _Todo = SimpleQueue()
        self._idle: _Idle = deque()
        self._threads: list[threading.Thread] = []
        weakref.finalize(self, _end, self._todo, self._idle, self._threads)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the call returns, or raises. If this is cancelled before its turn, it is not made."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._idle.pop()
        except IndexError:
            self._one_more()
        self._todo.put(_Call(loop, future, call, args, kwargs))
        return await future

    def _one_more(self) -> None:
        with self._lock:
            if len(self._threads) < self._most:
                name, work = f"{self._name}_{len(self._threads)}", (self._todo, self._idle)
                thread = threading.Thread(target=_work, args=work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()


def _work(todo: _Todo, idle: _Idle) -> None:
    while (one := todo.get()) is not None:
        one.make(idle)
        # Who waits for long must not keep what others asked, and were told.
        del one


def _end(todo: _Todo, idle: _Idle, threads: list[threading.Thread]) -> None:
    """Python must not end while a thread of it computes in a foreign library."""
    ended = threads[:]
    threads.clear()
    idle.clear()
    for _ in ended:
        todo.put(None)
    for thread in ended:
        # The garbage collector may run in any of them.
        if thread is not threading.current_thread():
            thread.join()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
