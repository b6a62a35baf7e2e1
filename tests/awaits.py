"""Cancel a coroutine at any of its awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest


async def await_by_await(work: Coroutine[Any, Any, Any], stop: int) -> tuple[bool, Any]:
    """Drive by hand, and cancel at the await number ``stop``. False, and its result, if it ended before."""
    for number in range(10_000):
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            return False, end.value
        if number == stop:
            with pytest.raises(asyncio.CancelledError):
                work.throw(asyncio.CancelledError())
            return True, None
        if waits_for is None:
            await asyncio.sleep(0)
        else:
            waits_for._asyncio_future_blocking = False
            await asyncio.wait([waits_for])
    raise AssertionError("it never ends")
