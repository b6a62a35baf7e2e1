"""Callers who leave while they are answered, on servers that call back and on those that must be listened to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatch_gateway.errors import Gone
from dispatch_gateway.http import LOST, Connected


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
