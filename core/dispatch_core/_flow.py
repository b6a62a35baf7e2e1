"""One generator of logic, two drivers.

A *flow* is a generator that decides and sequences; wherever it needs the outside world it yields a step that holds
the blocking and the asynchronous form of the same call. `run` performs the blocking forms, `arun` awaits the others.
The logic between the steps exists once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Step(NamedTuple):
    """One call to the outside world, in both its forms."""

    call: Callable[..., Any]
    acall: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Flow: TypeAlias = Generator[Step, Any, T]


def step(call: Callable[P, T], acall: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
    """Use as ``result = yield from step(store.get, store.aget, id)`` inside a flow."""
    result: T = yield Step(call, acall, args, kwargs)
    return result


def pause(seconds: float) -> Flow[None]:
    """Wait without holding the thread of an event loop."""
    yield Step(time.sleep, asyncio.sleep, (seconds,), {})


def unbroken(flow: Callable[[], Flow[T]], late: Callable[[asyncio.Future[T]], object]) -> Flow[T]:
    """A flow that goes on to its end when whoever awaits it is cancelled; ``late`` is told how it ended then."""

    def call() -> T:
        return run(flow())

    async def acall() -> T:
        going = asyncio.ensure_future(arun(flow()))
        try:
            return await asyncio.shield(going)
        except asyncio.CancelledError:
            going.add_done_callback(late)
            raise

    return (yield from step(call, acall))


def run(flow: Flow[T]) -> T:
    """Drive a flow with blocking calls; exceptions of a step are raised inside the flow first."""
    try:
        todo = next(flow)
        while True:
            try:
                result = todo.call(*todo.args, **todo.kwargs)
            except BaseException as error:
                todo = flow.throw(error)
            else:
                todo = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def arun(flow: Flow[T]) -> T:
    """Drive a flow by awaiting; a cancellation is raised inside the flow first, so that it can clean up."""
    try:
        todo = next(flow)
        while True:
            try:
                result = await todo.acall(*todo.args, **todo.kwargs)
            except BaseException as error:
                todo = flow.throw(error)
            else:
                todo = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
