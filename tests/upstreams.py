"""An upstream that does what a test tells it: answers, refuses, stalls, breaks off. Real HTTP, on a thread."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

Act = Callable[["Seen", web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """One request as the upstream saw it. ``left`` is set when its caller closed the connection."""

    path: str
    headers: Mapping[str, str]
    body: Any
    left: threading.Event = field(default_factory=threading.Event)


class Upstream:
    """Does the next of ``acts`` for each request, and the ``usual`` one when there is none left."""

    def __init__(self, usual: Act | None = None) -> None:
        self.usual = usual or says("yes")
        self.acts: deque[Act] = deque()
        self.seen: list[Seen] = []
        self._ready: Future[int] = Future()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ready.result(0)}/v1"

    def next(self, *acts: Act) -> None:
        self.acts.extend(acts)

    def __enter__(self) -> Upstream:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._ready.set_result(runner.addresses[0][1])
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        seen = Seen(request.path, request.headers, json.loads(raw) if raw else None)
        self.seen.append(seen)
        act = self.acts.popleft() if self.acts else self.usual
        try:
            return await act(seen, request)
        except (asyncio.CancelledError, ConnectionError):
            seen.left.set()
            raise


def says(text: str, **choice: Any) -> Act:
    """A whole answer, or a stream of it, as the request asks."""

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        if seen.body.get("stream"):
            usage = (seen.body.get("stream_options") or {}).get("include_usage")
            return await _streamed(request, chunks(text, usage=bool(usage)))
        message = {"role": "assistant", "content": text}
        body = {
            **_HEAD,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
            "usage": USAGE,
        }
        return web.json_response(body, headers={"x-ratelimit-remaining-tokens": "7", "openai-version": "v"})

    return act


def answers(body: Any, status: int = 200, **headers: str) -> Act:
    """Exactly this."""

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return web.Response(body=body, status=status, headers=plain)
        return web.json_response(body, status=status, headers=plain)

    return act


def refuses(status: int = 429, **headers: str) -> Act:
    kind = "rate_limit_error" if status == 429 else "server_error"
    return answers({"error": {"message": "no", "type": kind, "param": None, "code": None}}, status, **headers)


def streams(*events: bytes, ends: bool = True) -> Act:
    """These bytes as server-sent events; unless it ``ends``, the connection breaks after them."""

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        return await _streamed(request, events, ends=ends)

    return act


def stalls(*events: bytes) -> Act:
    """Sends these events and then nothing, for ever; without any, not even headers."""

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if events:
            await response.prepare(request)
            for event in events:
                await response.write(event)
        await asyncio.Event().wait()
        return response

    return act


def held(until: threading.Event, then: Act) -> Act:
    """Answers when it is told to."""

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        while not until.is_set():
            await asyncio.sleep(0.005)
        return await then(seen, request)

    return act


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
_HEAD = {"id": "chatcmpl-theirs", "created": 1, "model": "theirs", "system_fingerprint": "fp"}


def chunks(text: str, *, usage: bool = False, done: bool = True) -> list[bytes]:
    head = {**_HEAD, "object": "chat.completion.chunk"}
    parts: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    parts += [{"content": word} for word in text.split(" ")[:1] + [f" {word}" for word in text.split(" ")[1:]]]
    rows: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": part, "finish_reason": None}]} for part in parts
    ]
    rows.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        rows.append({**head, "choices": [], "usage": USAGE})
    return [*map(sse, rows), *([b"data: [DONE]\n\n"] if done else [])]


def sse(data: Any, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


async def _streamed(request: web.Request, events: Any, *, ends: bool = True) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        await response.write(event)
    if not ends and request.transport is not None:
        request.transport.close()
    return response


class SimulatedProvider:
    """`dispatcher simulate` in a process of its own: one that shares the interpreter with hundreds of callers notices
    a request long after it has come, and counts it then."""

    def __init__(self, *, rpm: int, window: float, latency: float) -> None:
        told = {"port": 0, "rpm": rpm, "window": window, "latency": latency}
        self._words = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
        self.url = ""

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=30) as reply:
            counted: dict[str, Any] = json.load(reply)
        return counted

    def __enter__(self) -> SimulatedProvider:
        words = [sys.executable, "-m", "dispatch_core", "simulate", *self._words]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        [self.url] = re.findall(r"http://\S+", self._process.stdout.readline())
        return self

    def __exit__(self, *raised: object) -> None:
        with self._process:
            self._process.terminate()
