"""One of several processes that use one provider: ``python worker.py URL NUMBER SECONDS QUOTA [REDIS]``.

``QUOTA`` is JSON. Prints a line for each request: when (Unix seconds) it was answered, and whether it was or refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

from dispatch_core import TokenLimiter, Usage

AT_ONCE = 12


async def main(url: str, number: str, seconds: str, quota: str, redis: str | None = None) -> None:
    """Closed loops around one limiter."""
    limiter = TokenLimiter(**json.loads(quota), redis=redis, name="sim-large")
    until = time.time() + float(seconds)

    async def loop(session: aiohttp.ClientSession) -> None:
        body = {
            "model": "sim-large",
            "messages": [{"role": "user", "content": f"Hello from {number}."}],
            "max_tokens": 90,
        }
        while time.time() < until:
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
        await asyncio.gather(*(loop(session) for _ in range(AT_ONCE)))
    await limiter.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
