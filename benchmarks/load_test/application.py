"""One arm in a process of its own: ``POST /ask`` answers a question, ``GET /stats`` tells what that took.

Whoever asks, the replay or Locust, asks over HTTP; so the CPU time of the program is its own; of a program with
a gateway, that of the busier of the two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

from aiohttp import web

from benchmarks.cpu import busiest
from benchmarks.demo.provider import Quota
from benchmarks.load_test.arms import ARMS, Ask, Target
from benchmarks.load_test.outcome import quantile

_TICK = 0.05


def application(ask: Ask) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        question = str((await request.json())["question"])
        try:
            found = await ask(question)
        except Exception as error:
            # A failed call is a result; it is counted, not hidden.
            status = 429 if getattr(error, "status_code", None) == 429 else 500
            return web.json_response({"error": type(error).__name__}, status=status)
        return web.json_response({"answer": found.text, "hit": found.hit})

    async def stats(request: web.Request) -> web.Response:
        return web.json_response({"cpu_seconds": busiest(os.getpid()), "lag": quantile(sorted(lags), 0.99)})

    async def watch(_: web.Application) -> AsyncIterator[None]:
        watching = asyncio.create_task(_measure(lags))
        yield
        watching.cancel()

    lags = [0.0]
    app = web.Application()
    app.cleanup_ctx.append(watch)
    app.router.add_post("/ask", answer)
    app.router.add_get("/stats", stats)
    return app


async def _measure(lags: list[float]) -> None:
    """How late the loop wakes up, in seconds: because it computes, or because the machine has no time for it."""
    while True:
        due = time.monotonic() + _TICK
        await asyncio.sleep(_TICK)
        lags.append(time.monotonic() - due)


async def _serve(ask: Ask) -> None:
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    runner = web.AppRunner(application(ask), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(f"application on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await done.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_test.application", description=__doc__)
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--provider", required=True, help="base URL of the provider")
    parser.add_argument("--rpm", type=int, required=True)
    parser.add_argument("--tpm", type=int, required=True)
    parser.add_argument("--window", type=float, required=True)
    options = parser.parse_args()
    target = Target(options.provider, Quota(options.rpm, options.tpm, options.window))
    with ARMS[options.arm].open(target) as ask:
        asyncio.run(_serve(ask))


if __name__ == "__main__":
    main()
