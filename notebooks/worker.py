"""One of several processes that use one provider: ``python worker.py URL NUMBER SECONDS QUOTA [REDIS]``.

``QUOTA`` is JSON. Says when it is ready, waits for a line to begin, then prints a line for each request: when (Unix
seconds) it was answered, by which process, and the status.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress

import aiohttp

from dispatch_core import TokenLimiter, Usage

AT_ONCE = 16


async def main(url: str, number: str, seconds: str, quota: str, redis: str | None = None) -> None:
    """As many calls as the limiter lets through, for so many seconds."""
    limiter = TokenLimiter(**json.loads(quota), redis=redis, name="sim-large")
    messages = [{"role": "user", "content": f"Hello from {number}."}]
    body = {"model": "sim-large", "messages": messages, "max_tokens": 90}

    async def loop(session: aiohttp.ClientSession) -> None:
        while True:
            async with limiter.reserve(20, max_tokens=90) as reservation:
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    print(json.dumps([time.time(), int(number), response.status]), flush=True)
                    answer = await response.json()
                if response.status == 200:
                    used = answer["usage"]
                    reservation.settle(Usage(used["prompt_tokens"], used["completion_tokens"]), response.headers)
                else:
                    # Refused: the limiter is told, gives the reservation back and slows down.
                    reservation.throttled(response.status, response.headers, answer)

    async with aiohttp.ClientSession() as session:
        await _connect(session, url)
        with suppress(TimeoutError):
            async with asyncio.timeout(float(seconds)):
                await asyncio.gather(*(loop(session) for _ in range(AT_ONCE)))
    await limiter.aclose()


async def _connect(session: aiohttp.ClientSession, url: str) -> None:
    """Open the connections, so that the start of a program is not measured, and begin with the others."""

    async def connect() -> None:
        async with session.get(f"{url}/models") as response:
            await response.read()

    await asyncio.gather(*(connect() for _ in range(AT_ONCE)))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
