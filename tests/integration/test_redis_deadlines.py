"""A call to Redis has one deadline: what found no answer until then is not begun anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FORMS, Either, made
from places import EAST, HERE, NOW, found
from servers import Cluster, Sentinel, Server

from dispatch_core import RedisNearStore, StoreError
from dispatch_core.keys import digest
from dispatch_core.stores._wire import Wire


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["server", "sentinel", "cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Server]]]:
    """The URL of a Valkey, and the servers that may be asked."""
    if request.param == "cluster":
        nodes = Cluster("valkey").start()
        yield nodes.url, nodes.nodes
        nodes.stop()
        return
    server = Server("valkey").start()
    if request.param == "sentinel":
        watching = Sentinel("valkey", server).start()
        yield watching.url, [server]
        watching.stop()
    else:
        yield server.url, [server]
    server.stop()


def _connections(server: Server) -> int:
    """How often somebody has connected."""
    told = re.search(r"total_connections_received:(\d+)", server.ask("INFO", "stats"))
    assert told is not None
    return int(told[1])


def _owner(servers: list[Server], key: str) -> Server:
    """The server that keeps the key."""
    for server in servers:
        if "MOVED" not in server.ask("EXISTS", key):
            return server
    raise AssertionError(key)


async def test_what_timed_out_is_not_sent_again(place, form):
    url, servers = place
    store = Either(RedisNearStore(url, timeout=0.4), form)
    await store.put(made("a"), EAST)
    assert await found(store) == [digest("a")]
    server = _owner(servers, "{dispatch}:x")
    before = _connections(server)
    with server.silent():
        for _ in range(2):
            with pytest.raises(StoreError, match="Timeout"):
                await store.get(digest("a"), now=NOW)
    # Each call connects at most once: neither was made once more. This question is a connection, too.
    assert _connections(server) - before <= 3
    assert await found(store) == [digest("a")]
    await store.target.aclose()


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(place, form):
    url, servers = place
    store = Either(RedisNearStore(url, timeout=20), form)
    await store.put(made("a"), EAST)
    _owner(servers, "{dispatch}:x").ask("CLIENT", "KILL", "TYPE", "normal")
    assert (await store.get(digest("a"), now=NOW)).id == digest("a")
    _owner(servers, "{dispatch}:x").ask("CLIENT", "KILL", "TYPE", "normal")
    await store.put(made("b"), EAST)
    assert len(await store.search(EAST, scope=HERE, limit=9, now=NOW)) == 2
    await store.target.aclose()


def test_several_replies_have_one_deadline_together(own_server: Server):
    class Slow:
        """Of a connection, replies that take nearly as long as one may."""

        def __init__(self) -> None:
            self.left: list[Any] = []

        def send_packed_command(self, words: Any) -> None:
            pass

        def read_response(self, *, timeout: float | None = None) -> bytes:
            nonlocal now
            self.left.append(timeout)
            now += 6.0
            return b"PONG"

        def disconnect(self) -> None:
            pass

    now = 100.0
    wire, slow = Wire(own_server.url, timeout=10.0), Slow()
    wire._idle.append(slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dispatch_core.stores._wire.time.monotonic", lambda: now)
        assert wire.exchange([("PING",)] * 3) == [b"PONG"] * 3
    # What has come by then is taken, and nothing is waited for.
    assert slow.left == [None, pytest.approx(4.0), pytest.approx(0.001)]
    wire.close()
