"""Callers who leave while they are answered, on servers that call back and on those that must be listened to; and
calls that take too long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatch_gateway.errors import Gone
from dispatch_gateway.http import LOST, Connected, Deadlines


class Caller:
    """May leave. ``scope`` is that of a server with the extension or without."""

    def __init__(self, *, extension: bool) -> None:
        self.lost: set[Any] = set()
        self.scope: dict[str, Any] = {"type": "http", **({"extensions": {LOST: self.lost}} if extension else {})}
        self._left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._left.set()
        for tell in tuple(self.lost):
            tell()


@pytest.mark.parametrize("extension", [True, False])
async def test_what_is_under_way_ends_when_the_caller_leaves(extension: bool) -> None:
    caller, ended = Caller(extension=extension), []

    async def answer() -> None:
        with Connected(caller.scope, caller.receive):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("inside")

    task = asyncio.create_task(answer())
    await asyncio.sleep(0)
    caller.leave()
    with pytest.raises(Gone):
        await task
    assert (ended, task.cancelling(), caller.lost) == (["inside"], 0, set())


@pytest.mark.parametrize("extension", [True, False])
async def test_who_leaves_after_the_answer_stops_nothing(extension: bool) -> None:
    caller = Caller(extension=extension)
    with Connected(caller.scope, caller.receive):
        await asyncio.sleep(0)
    caller.leave()
    await asyncio.sleep(0)
    assert not caller.lost


@pytest.mark.parametrize("extension", [True, False])
async def test_a_server_that_stops_is_not_a_caller_who_leaves(extension: bool) -> None:
    caller = Caller(extension=extension)

    async def answer() -> None:
        with Connected(caller.scope, caller.receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(answer())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


_SOON, _LATE = 0.01, 3600.0


async def _waiting(deadlines: Deadlines, ended: list[str] | None = None, name: str = "") -> None:
    with deadlines.started():
        try:
            await asyncio.Event().wait()
        finally:
            if ended is not None:
                ended.append(name)


async def test_what_takes_too_long_is_ended() -> None:
    task = asyncio.create_task(_waiting(Deadlines(_SOON)))
    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


async def test_who_began_first_is_late_first() -> None:
    deadlines, ended = Deadlines(_SOON), list[str]()
    tasks = []
    for name in ("first", "second", "third"):
        tasks.append(asyncio.create_task(_waiting(deadlines, ended, name)))
        await asyncio.sleep(_SOON / 3)
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in told] == [TimeoutError] * 3
    assert ended == ["first", "second", "third"]


async def test_who_ends_in_time_is_not_disturbed_and_holds_up_nobody() -> None:
    deadlines = Deadlines(_SOON)
    with deadlines.started():
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await _waiting(deadlines)
    with pytest.raises(TimeoutError):
        await _waiting(deadlines)


async def test_who_is_stopped_by_others_is_not_late() -> None:
    task = asyncio.create_task(_waiting(Deadlines(_LATE)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_late_and_stopped_by_others_is_stopped() -> None:
    async def answer() -> None:
        with deadlines.started():
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    deadlines = Deadlines(_SOON)
    task = asyncio.create_task(answer())
    with pytest.raises(asyncio.CancelledError):
        await task


def test_deadlines_outlive_an_event_loop() -> None:
    deadlines = Deadlines(_SOON)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(_waiting(deadlines))

        async def left_behind() -> None:
            with deadlines.started():
                await asyncio.sleep(0)

        asyncio.run(left_behind())
