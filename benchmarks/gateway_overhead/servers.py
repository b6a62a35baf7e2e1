"""The processes of a measurement: an upstream that answers a fixed body, a bare proxy, and the gateway itself.

``python -m benchmarks.gateway_overhead.servers upstream SECONDS SPREAD`` and ``... proxy URL`` print where they
listen.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web

from benchmarks.gateway_process import gateway

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 100}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 100, "total_tokens": 140},
}
_UNLIMITED = {"rpm": 1e9, "tpm": 1e12}


@contextmanager
def started(*words: str) -> Iterator[tuple[str, int]]:
    """A process of this Python: the last word of its first line, and its id."""
    with subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.kill()


@contextmanager
def unlimited(upstream_url: str, cache: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """A gateway whose limiter never says no: its address and the id of its process."""
    deployment = {"base_url": f"{upstream_url}/v1", "api_key": "k", "limits": _UNLIMITED}
    with gateway({"models": {"*": [deployment]}, "cache": dict(cache)}) as (url, process):
        yield url.removesuffix("/v1"), process


def upstream(latency: float, spread: float) -> None:
    """Serve the fixed answer until killed; prints its address. ``latency`` is in seconds, and differs by up to the
    share ``spread`` from question to question, always the same for one."""
    body = json.dumps(_ANSWER).encode()

    async def chat(request: web.Request) -> web.Response:
        place = zlib.crc32(await request.read()) / 2**32
        if latency:
            await asyncio.sleep(latency * (1 + spread * (2 * place - 1)))
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


def proxy(url: str) -> None:
    """Copy bytes to an upstream and back until killed; prints its own address."""
    session: list[aiohttp.ClientSession] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = (await receive())["body"]
        headers = {"content-type": "application/json"}
        async with session[0].post(url + scope["path"], data=body, headers=headers) as response:
            answer = await response.read()
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": answer})

    # Named as TCP: what is accepted from it would else wait with small writes, and each answer for 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, proxy_headers=False)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        upstream(float(sys.argv[2]), float(sys.argv[3]))
    else:
        proxy(sys.argv[2])
