"""The short way to Redis: connections are kept, and one that broke is replaced unseen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from dispatch_core import ConfigError, StoreError
from dispatch_core.stores._wire import Wire

_PATIENCE = 20.0


@pytest.fixture
def wire(redis_like_url):
    made = Wire(redis_like_url, timeout=_PATIENCE)
    yield made
    made.close()


def _id(wire):
    return wire.send(("CLIENT", "ID"))


def test_words_of_every_kind_arrive_as_they_are(wire):
    for word in (b"", b"\x00\r\n\xff", "é", 12):
        raw = word if isinstance(word, bytes) else str(word).encode()
        assert wire.send(("ECHO", word)) == raw


def test_a_connection_is_kept_also_after_an_error_that_redis_replied(wire):
    first = _id(wire)
    with pytest.raises(StoreError, match="unknown command"):
        wire.send(("NOSUCHCOMMAND",))
    assert _id(wire) == first


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(wire, redis_like_url):
    first = _id(wire)
    with redis.Redis.from_url(redis_like_url) as client:
        assert client.client_kill_filter(_id=str(first)) == 1
    assert _id(wire) != first


def test_whoever_sends_after_closing_connects_anew(wire):
    first = _id(wire)
    wire.close()
    assert _id(wire) != first


def test_threads_never_share_a_connection(wire):
    with ThreadPoolExecutor(12) as pool:
        texts = [f"{number}" * (1 + number % 50) for number in range(600)]
        replies = list(pool.map(lambda text: wire.send(("ECHO", text)), texts))
    assert replies == [text.encode() for text in texts]


def test_a_server_that_is_not_there_is_a_store_error():
    with pytest.raises(StoreError, match="Redis failed"):
        Wire("redis://127.0.0.1:1", timeout=_PATIENCE).send(("PING",))


def test_nonsense_for_a_url_is_refused():
    with pytest.raises(ConfigError, match="not a Redis URL"):
        Wire("http://example.org", timeout=_PATIENCE)
