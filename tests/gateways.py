"""Gateways for the tests: real ones, on a local port, in a thread or in a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml

from dispatch_core import HashingEmbedder
from dispatch_core.ports import Embedder
from dispatch_gateway import Settings
from dispatch_gateway.server import Server
from dispatch_gateway.service import Service

PATIENCE = 30.0
_EMBEDDER = HashingEmbedder()


class Gateway:
    """A gateway on a thread and an event loop of its own. Settings are those of ``dispatch.yaml``."""

    def __init__(self, settings: Mapping[str, Any], *, embedder: Embedder | None = _EMBEDDER) -> None:
        given = {"listen": {"port": 0}, **settings}
        given["cache"] = {"embedder": "none", **given.get("cache", {})}
        self.settings = Settings.model_validate(given)
        self._embedder = embedder
        self._ready: Future[int] = Future()
        self.service: Any = None
        self.server: Any = None

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._ready.result(0)}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> Gateway:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.result(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.should_exit = True
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self.service = Service(self.settings, embedder=self._embedder)
            self.server = Server(self.service, ready=self._ready.set_result)
            await self.server.serve()

        try:
            asyncio.run(main())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)


class Process:
    """``dispatcher serve`` as somebody would start it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None, **env: str) -> None:
        self.file = folder / "dispatch.yaml"
        words = [sys.executable, "-m", "dispatch_gateway", "--port", "0"]
        if settings is not None:
            self.write(settings)
            words += ["--config", str(self.file)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        # A file, for nobody reads what is logged until the end.
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=log, text=True, env={**clean, **env}
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self.log())
        self.url = line.split()[-1]
        self.root = self.url.removesuffix("/v1")

    def write(self, settings: Mapping[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """The exit code and what was logged, when it has ended by itself."""
        self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, self.log()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def memory(self) -> float:
        """What it holds now, in MB."""
        words = ["ps", "-o", "rss=", "-p", str(self._process.pid)]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1024

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Client:
    """A plain client of a gateway's endpoints."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def ask(
        self, body: Any, path: str = "/chat/completions", **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url + path, json=body, headers=plain) as response:
            raw = await response.read()
            return response.status, response.headers, json.loads(raw) if raw.startswith(b"{") else raw.decode()

    async def forget(self, **query: str) -> Any:
        async with self.session.delete(f"{self.url}/cache", params=query) as response:
            return await response.json()


def deployment(url: str, **settings: Any) -> dict[str, Any]:
    return {"base_url": url, "api_key": "upstream-key", **settings}


def to(url: str, **settings: Any) -> dict[str, Any]:
    """The models of a gateway that has one upstream for all."""
    return {"*": [deployment(url, **settings)]}


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until ``holds()``; fails when it takes too long."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.005)
