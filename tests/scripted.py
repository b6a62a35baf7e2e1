"""An embeddings API that answers as it is told, to see what a client makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

DIMS = 4
HANG, CLOSE = "hang", "close"


def row(text: str) -> list[float]:
    return [1.0, float(len(text)), 0.0, 0.0]


def answer(texts: list[str]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": at, "embedding": row(text)} for at, text in enumerate(texts)]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def refusal(milliseconds: int = 1) -> tuple[int, dict[str, str], Any]:
    error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
    return 429, {"retry-after-ms": str(milliseconds)}, {"error": error}


def failure(status: int) -> tuple[int, dict[str, str], Any]:
    return status, {}, {"error": {"message": "it quotes the secret text", "type": "server_error"}}


class Scripted:
    """Gives each request the next of ``replies``, and when they are used up, a right answer.

    A reply is (status, headers, body), a function from the texts to a body, `HANG` or `CLOSE`.
    """

    def __init__(self, *replies: Any, forever: Any = None) -> None:
        self._replies = list(replies)
        self._forever = forever
        self._lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []
        self.released = threading.Event()
        self.reached = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.handle(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def handle(self, to: BaseHTTPRequestHandler) -> None:
        asked = json.loads(to.rfile.read(int(to.headers["content-length"])))
        with self._lock:
            self.requests.append(asked)
            reply = self._replies.pop(0) if self._replies else self._forever
        self.reached.set()
        if reply in (HANG, CLOSE):
            if reply == HANG:
                self.released.wait(60)
            to.close_connection = True
            return
        given: Callable[[list[str]], Any] = reply if callable(reply) else answer
        status, headers, body = reply if isinstance(reply, tuple) else (200, {}, given(asked["input"]))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        to.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            to.send_header(name, value)
        to.end_headers()
        to.wfile.write(data)

    def __enter__(self) -> Scripted:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()
