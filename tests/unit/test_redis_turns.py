"""Calls of one event loop take turns at the pool of connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from dispatch_core.stores import _redis
from dispatch_core.stores._redis import Connections


@pytest.fixture
async def connections() -> Any:
    made = Connections("redis://127.0.0.1:1", None, None, timeout=1)
    yield made
    await made.aclose()


async def test_of_a_thousand_calls_at_once_a_few_have_a_connection_and_none_is_refused(connections, monkeypatch):
    busy: list[int] = []
    now = 0

    async def asked(client: Any, commands: Any) -> list[Any]:
        nonlocal now
        now += 1
        busy.append(now)
        await asyncio.sleep(0)
        now -= 1
        return [b"PONG"]

    monkeypatch.setattr(_redis, "_asent", asked)
    replies = await asyncio.gather(*(connections.asend([("PING",)]) for _ in range(1_000)))
    assert replies == [[b"PONG"]] * 1_000
    assert 1 < max(busy) <= _redis._AT_ONCE


async def test_who_waits_behind_a_call_that_fails_need_not_fail_by_himself(connections, monkeypatch):
    tried = 0

    async def asked(client: Any, commands: Any) -> list[Any]:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0)
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(_redis, "_asent", asked)
    fates = await asyncio.gather(*(connections.asend([("PING",)]) for _ in range(500)), return_exceptions=True)
    assert {type(fate) for fate in fates} == {redis.ConnectionError}
    # Each of those who had a turn tried once more, for all broke at once.
    assert tried <= 2 * _redis._AT_ONCE
    with pytest.raises(redis.ConnectionError, match="gone"):
        await connections.asend([("PING",)])
