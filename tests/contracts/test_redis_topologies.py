"""The Redis store on a cluster, behind a sentinel, over TLS, and as a user with few rights."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.cluster
import redis.sentinel
from fakes import Either, made, unit
from places import EAST, HERE, NORTH, NOW, found
from servers import REDIS_LIKE, Cluster, Sentinel, Server, certificate, free_port

from dispatch_core import (
    ConfigError,
    HashingEmbedder,
    RedisAutoStore,
    RedisMemoEmbedder,
    RedisNearStore,
    StoreError,
    redis_store,
    store_from_url,
)
from dispatch_core.keys import digest
from dispatch_core.stores._redis_clients import Address


@pytest.fixture(scope="module", params=REDIS_LIKE)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    nodes = Cluster(request.param).start()
    yield nodes
    nodes.stop()


@pytest.fixture
def sentinel(own_server: Server) -> Iterator[Sentinel]:
    # A sentinel speaks of Redis and of Valkey alike.
    watching = Sentinel("valkey", own_server).start()
    yield watching
    watching.stop()


async def _works(open_store: Callable[[], RedisNearStore], form: str) -> None:
    """All that a store does, seen by another as well."""
    one, other = (Either(open_store(), form) for _ in range(2))
    await one.put(made("a", payload=b"answer", tags=["tag"], expires=NOW + 5), EAST)
    await other.put(made("b", namespace="theirs"), NORTH)
    await one.put(made("c"), None)
    assert await found(other) == [digest("a"), digest("b")]
    assert (await other.get(digest("a"), now=NOW)).payload == b"answer"
    await other.touch(digest("a"), expires=NOW + 9, now=NOW)
    assert await found(one, now=NOW + 7) == [digest("a"), digest("b")]
    assert await one.lease("l", owner="one", seconds=9)
    assert not await other.lease("l", owner="other", seconds=9)
    await one.release("l", owner="one")
    newcomer = Either(open_store(), form)
    assert await found(newcomer, unit(1, 1, 0)) in ([digest("a"), digest("b")], [digest("b"), digest("a")])
    assert await newcomer.clear(tags=["tag"]) == 1
    assert await newcomer.clear(digest("theirs")) == 1
    await one.delete(digest("c"))
    assert await found(one) == []
    assert await other.clear() == 0
    for each in (one, other, newcomer):
        await each.target.aclose()


# A cluster


async def test_a_memo_takes_many_texts_at_once_from_a_cluster(cluster, form):
    embedder = RedisMemoEmbedder(HashingEmbedder(16), cluster.url, prefix=uuid.uuid4().hex, timeout=20)
    either = Either(embedder, form)
    await either.embed(["one", "two", "three"])
    await either.embed(["three", "two", "one"])
    assert (embedder.stats().hits, embedder.stats().failures) == (3, 0)
    await embedder.aclose()


async def test_a_cluster_by_its_url(cluster, form):
    for _ in range(4):
        # Prefixes whose slots lie on one node and another.
        prefix = uuid.uuid4().hex
        await _works(lambda prefix=prefix: RedisNearStore(cluster.url, prefix=prefix, timeout=20), form)


async def test_a_cluster_by_a_client_of_the_callers(cluster, form):
    with redis.RedisCluster.from_url(cluster.url.replace("+cluster", "")) as client:
        prefix = uuid.uuid4().hex
        await _works(lambda: RedisNearStore(client=client, prefix=prefix), form)
        assert client.ping(target_nodes="primaries")


async def test_a_cluster_by_an_async_client_of_the_callers(cluster):
    plain = cluster.url.replace("+cluster", "")
    with redis.RedisCluster.from_url(plain) as client:
        async with redis.asyncio.RedisCluster.from_url(plain) as async_client:
            prefix = uuid.uuid4().hex
            await _works(lambda: RedisNearStore(client=client, async_client=async_client, prefix=prefix), "async")


async def test_a_cluster_answers_a_hundred_askers(cluster):
    store = RedisNearStore(cluster.url, prefix=uuid.uuid4().hex, timeout=20)
    for number in range(20):
        await store.aput(made(f"{number}"), unit(1, number, 0))
    entries = await asyncio.gather(*(store.aget(digest(f"{n % 20}"), now=NOW) for n in range(100)))
    assert [entry.id for entry in entries] == [digest(f"{n % 20}") for n in range(100)]
    matches = await asyncio.gather(
        *(store.asearch(unit(1, n % 20, 0), scope=HERE, limit=3, now=NOW) for n in range(100))
    )
    assert [match[0].entry.id for match in matches] == [digest(f"{n % 20}") for n in range(100)]
    await store.aclose()


async def test_a_cluster_that_is_not_there_is_a_store_error(form):
    store = Either(store_from_url("redis+cluster://127.0.0.1:1"), form)
    with pytest.raises(StoreError, match="Redis failed"):
        await store.get(digest("a"), now=NOW)
    await store.target.aclose()


# Sentinels


async def test_a_sentinel_by_its_url(sentinel, form):
    await _works(lambda: RedisNearStore(sentinel.url, timeout=20), form)


async def test_a_client_that_a_sentinel_made(sentinel, form):
    client = redis.sentinel.Sentinel([("127.0.0.1", sentinel.port)], socket_timeout=20).master_for("service")
    await _works(lambda: RedisNearStore(client=client), form)
    client.close()


async def test_a_service_that_no_sentinel_knows_is_a_store_error(sentinel, form):
    store = Either(RedisNearStore(sentinel.url + "s", timeout=20), form)
    with pytest.raises(StoreError, match="MasterNotFoundError"):
        await store.get(digest("a"), now=NOW)
    await store.target.aclose()


# TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Redis, for the Valkey of the wheel was built without TLS."""
    crt, key = certificate(tmp_path_factory.mktemp("tls"))
    port = free_port()
    files = {"tls_cert_file": crt, "tls_key_file": key, "tls_ca_cert_file": crt}
    server = Server("redis", tls_port=port, tls_auth_clients="no", **files).start()
    yield f"rediss://127.0.0.1:{port}/0", crt
    server.stop()


async def test_tls_with_a_certificate_of_ones_own(tls, form):
    url, certificate = tls
    prefix = uuid.uuid4().hex
    await _works(lambda: RedisNearStore(f"{url}?ssl_ca_certs={certificate}", prefix=prefix, timeout=20), form)


async def test_a_certificate_that_nobody_vouches_for_is_a_store_error(tls, form):
    store = Either(RedisNearStore(tls[0], timeout=20), form)
    with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED"):
        await store.get(digest("a"), now=NOW)
    await store.target.aclose()


# A user with few rights


def _documented(password: str) -> list[str]:
    """The words of the rule that the docstring gives."""
    text = RedisNearStore.__doc__ or ""
    [rule] = re.findall(r"ACL SETUSER.*?\+hello", text, re.DOTALL)
    return rule.replace(">password", f">{password}").split()


@pytest.fixture
async def user(redis_like_url: str) -> AsyncIterator[str]:
    with redis.Redis.from_url(redis_like_url) as client:
        client.execute_command(*_documented("secret"))
        yield redis_like_url.replace("redis://", "redis://dispatcher:secret@")
        client.acl_deluser("dispatcher")


async def test_the_documented_rights_suffice(user, form):
    await _works(lambda: RedisNearStore(user, timeout=20), form)
    with redis.Redis.from_url(user) as client:
        await _works(lambda: RedisNearStore(client=client), form)


async def test_the_documented_rights_reach_no_other_prefix(user, form):
    store = Either(RedisNearStore(user, prefix="others", timeout=20), form)
    for call in (store.get(digest("a"), now=NOW), store.put(made("a"), None), store.lease("l", owner="o", seconds=1)):
        with pytest.raises(StoreError, match="NoPermission"):
            await call
    await store.target.aclose()


# URLs


@pytest.mark.parametrize(
    "url", ["redis+cluster://host:1", "rediss+cluster://u:p@host", "redis+sentinel://a:1,b/name/2"]
)
def test_a_url_names_what_there_is_and_nobody_is_asked_yet(url):
    for index, kind in (("", RedisAutoStore), ("?index=near", RedisNearStore)):
        store: Any = store_from_url(url + index)
        assert isinstance(store, kind)
        store.close()


@pytest.mark.parametrize("url", ["redis://host/2?index=near&socket_keepalive=yes", "redis://host?index=near"])
def test_the_index_of_a_url_goes_before_the_argument(url):
    assert isinstance(redis_store(url, index="vectorset"), RedisNearStore)
    with pytest.raises(ConfigError, match="index is one of"):
        redis_store(url.replace("near", "neer"))


def test_a_url_of_sentinels_is_read():
    read = Address.of("rediss+sentinel://user:pass%40word@one:1,two,[::1]:3/a%20name/2?socket_keepalive=yes")
    assert read == Address(
        "sentinel",
        "rediss://user:pass%40word@localhost/2?socket_keepalive=yes",
        (("one", 1), ("two", 26379), ("::1", 3)),
        "a name",
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@one",
        "redis+sentinel://:secret@one:x/name",
        "redis+other://:secret@host",
        "redis+cluster://:secret@host:x",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as refused:
        RedisNearStore(url)
    assert "secret" not in str(refused.value)
