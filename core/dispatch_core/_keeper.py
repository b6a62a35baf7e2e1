"""What belongs to an event loop and must be closed in it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable


async def closed_with_loop(close: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    """Begun with `anext`, calls ``close`` when its loop ends: `asyncio.run` ends the generators that were begun in
    it. Or when nobody holds the generator any more: Python then has its loop end it."""
    try:
        yield
    finally:
        await close()
