"""What the gateway adds to a call: ``python -m benchmarks.gateway_overhead``.

An upstream that takes a fixed time answers a fixed body. The same client asks it directly and through a gateway in
a process of its own, in turns. All are misses: every question is new, and without an embedding model nothing is
compared by meaning; the limiter never says no. Printed are medians over the rounds: latency at ``--in-flight`` calls
under way, requests per second when the upstream takes no time, and CPU per request. A proxy of the same parts
(uvicorn, aiohttp) that only copies bytes says what of that is theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web

from benchmarks.cpu import cpu_seconds

_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 100}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 100, "total_tokens": 140},
}
_SYSTEM = "You are a helpful assistant of a bank. Answer briefly and politely. " * 3


@dataclass(frozen=True, slots=True)
class Round:
    """One pass: the median latency in seconds, requests per second, CPU seconds of the gateway per request."""

    median: float
    rate: float
    cpu: float


def upstream(latency: float) -> None:
    """Serve the fixed answer until killed; prints its port."""
    body = json.dumps(_ANSWER).encode()

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        if latency:
            await asyncio.sleep(latency)
        return web.Response(body=body, content_type="application/json")

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        print(runner.addresses[0][1], flush=True)
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


async def _pass(url: str, requests: int, in_flight: int, tag: str, process: int | None) -> Round:
    took: list[float] = []
    numbers = iter(range(requests))
    before = 0.0 if process is None else cpu_seconds(process)
    begun = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            for number in numbers:
                body = _body(f"Question {tag} {number}?")
                start = time.perf_counter()
                async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
                    await response.read()
                    if response.status != 200:
                        raise SystemExit(f"status {response.status}: {await response.text()}")
                took.append(time.perf_counter() - start)

        await asyncio.gather(*(worker() for _ in range(in_flight)))
    spent = time.perf_counter() - begun
    cpu = 0.0 if process is None else cpu_seconds(process) - before
    return Round(statistics.median(took), requests / spent, cpu / requests)


def _body(question: str) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    return json.dumps({"model": "m", "messages": messages, "max_tokens": 200}).encode()


def _started(*words: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[-1]


ARMS = ("direct", "proxy", "gateway")


def _measure(latency: float, options: argparse.Namespace) -> dict[str, list[Round]]:
    here = "benchmarks.gateway_overhead"
    server, port = _started("-m", here, "--upstream", str(latency))
    direct_url = f"http://127.0.0.1:{port}"
    settings: dict[str, Any] = {
        "models": {"*": [{"base_url": f"{direct_url}/v1", "api_key": "k", "limits": {"rpm": 1e9, "tpm": 1e12}}]},
        "cache": {"embedder": "none"},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(settings, file)
        file.flush()
        words = ["--config", file.name, "--port", "0", "--log-level", "warning"]
        gateway, url = _started("-m", "dispatch_gateway", *words)
    copying, copying_url = _started("-m", here, "--proxy", direct_url)
    arms = {
        "direct": (direct_url, None),
        "proxy": (copying_url, copying.pid),
        "gateway": (url.removesuffix("/v1"), gateway.pid),
    }
    rounds: dict[str, list[Round]] = {name: [] for name in ARMS}
    try:
        for number in range(options.rounds):
            for name, (base, process) in arms.items():
                tag, path = f"{latency} {number}", "/v1/chat/completions"
                asked = _pass(base + path, options.requests, options.in_flight, tag, process)
                rounds[name].append(asyncio.run(asked))
    finally:
        for one in (gateway, copying, server):
            one.kill()
            one.wait()
    # The first round fills connections and memos.
    return {name: kept[1:] for name, kept in rounds.items()}


def _median(rounds: list[Round], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1500, help="in each pass (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="passes of each arm, the first not counted")
    parser.add_argument("--in-flight", type=int, default=50, help="calls at once (default: %(default)s)")
    parser.add_argument(
        "--latency", type=float, default=0.1, help="of the upstream, in seconds (default: %(default)s)"
    )
    parser.add_argument("--upstream", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--proxy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream is not None:
        upstream(options.upstream)
        return
    if options.proxy is not None:
        proxy(options.proxy)
        return
    slow, fast = _measure(options.latency, options), _measure(0.0, options)
    print(f"{options.in_flight} in flight; upstream of {options.latency * 1000:.0f} ms, then one without latency")
    print(f"{'':10}{'p50 ms':>10}{'added ms':>10}{'requests/s':>12}{'CPU ms':>9}{'/s on a core':>14}")
    alone = _median(slow["direct"], "median")
    for name in ARMS:
        p50, rate, cpu = _median(slow[name], "median"), _median(fast[name], "rate"), _median(fast[name], "cpu")
        shown = f"{cpu * 1000:9.2f}{1 / cpu:14.0f}" if cpu else ""
        print(f"{name:10}{p50 * 1000:10.2f}{(p50 - alone) * 1000:10.2f}{rate:12.0f}{shown}")


if __name__ == "__main__":
    main()
