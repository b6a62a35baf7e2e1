"""The store that asks the server what it can do: when, what it takes, and what happens if it cannot ask."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from fakes import Either, made
from places import EAST, HERE, NOW, found
from redisearch_double import DoubleStore
from servers import REDIS_8, REDIS_LIKE, REDISEARCH_URL, Server, free_port

from dispatch_core import (
    ConfigError,
    RedisAutoStore,
    RediSearchStore,
    RedisNearStore,
    StoreError,
    VectorSetStore,
    redis_store,
)
from dispatch_core.keys import digest
from langchain_dispatch import SemanticRedisCache

CHOICES = [
    *((kind, RedisNearStore) for kind in (*REDIS_LIKE, *REDIS_8)),
    *([("redisearch", RediSearchStore)] if REDISEARCH_URL else []),
]


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=REDIS_8)
def user(request: pytest.FixtureRequest, redis8_url: str) -> Iterator[redis.Redis]:
    """The administrator of a Redis that could do more than it lets the user do."""
    with redis.Redis.from_url(redis8_url) as client:
        yield client
        client.acl_deluser("guest")


def _guest(url: str) -> str:
    return url.replace("redis://", "redis://guest:secret@")


@pytest.mark.parametrize(("server", "kind"), CHOICES)
async def test_the_server_decides_which_store_it_is(server, kind, form, request):
    url = request.getfixturevalue(f"{server}_url")
    store = RedisAutoStore(url, prefix=uuid.uuid4().hex, timeout=20)
    either = Either(store, form)
    assert store.chosen is None
    await either.put(made("a"), EAST)
    assert type(store.chosen) is kind
    assert await found(either) == [digest("a")]
    assert await either.clear() == 1
    await store.aclose()


async def test_a_server_that_is_down_is_asked_again(own_server: Server, form):
    store = RedisAutoStore(own_server.url, timeout=5)
    either = Either(store, form)
    own_server.stop()
    for _ in range(2):
        with pytest.raises(StoreError):
            await either.get(digest("a"), now=NOW)
    assert store.chosen is None
    own_server.start()
    assert await either.get(digest("a"), now=NOW) is None
    assert isinstance(store.chosen, RedisNearStore)
    await store.aclose()


def test_many_first_users_agree(redis_like_url):
    store = RedisAutoStore(redis_like_url, prefix=uuid.uuid4().hex, timeout=20)

    def use(number: int) -> object:
        store.put(made(f"{number}"), EAST)
        return store.chosen

    with ThreadPoolExecutor(20) as threads:
        assert len(set(map(id, threads.map(use, range(40))))) == 1
    assert len(store.search(EAST, scope=HERE, limit=99, now=NOW)) == 40
    store.close()


async def test_commands_denied_to_the_user_are_not_there(user, redis8_url, form):
    user.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all", "-vsim", "-command")
    prefix = uuid.uuid4().hex
    await _in_vector_sets(redis8_url, prefix)
    store = RedisAutoStore(_guest(redis8_url), prefix=prefix, timeout=20)
    either = Either(store, form)
    await either.put(made("a"), EAST)
    assert await found(either) == [digest("a")]
    assert isinstance(store.chosen, RedisNearStore)
    await store.aclose()


async def test_a_user_that_may_not_look_around_may_still_search(user, redis8_url, form):
    user.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all", "-scan")
    store = RedisAutoStore(_guest(redis8_url), prefix=uuid.uuid4().hex, timeout=20)
    either = Either(store, form)
    assert await either.get(digest("a"), now=NOW) is None
    assert isinstance(store.chosen, RedisNearStore)
    await store.aclose()


async def _in_vector_sets(url: str, prefix: str) -> None:
    store = VectorSetStore(url, prefix=prefix, timeout=20)
    await store.aput(made("there"), EAST)
    await store.aclose()


@pytest.mark.parametrize("kind", [RedisNearStore, VectorSetStore])
@pytest.mark.parametrize("server", REDIS_8)
async def test_entries_that_are_there_stay_there(server, kind, form, request):
    url, prefix = request.getfixturevalue(f"{server}_url"), uuid.uuid4().hex
    before = kind(url, prefix=prefix, timeout=20)
    before.put(made("there"), EAST)
    for number in range(3):
        store = RedisAutoStore(url, prefix=prefix, timeout=20)
        assert await found(Either(store, form)) == [digest("there")]
        assert type(store.chosen) is kind
        if number == 0:
            # The choice is written down: who comes later need not look.
            before.clear()
            assert await Either(store, form).get(digest("there"), now=NOW) is None
            before.put(made("there"), EAST)
        await store.aclose()
    before.close()


@pytest.mark.parametrize("server", REDIS_8)
async def test_a_choice_outlives_its_entries_and_a_lost_choice_is_found_again(server, form, request):
    url, prefix = request.getfixturevalue(f"{server}_url"), uuid.uuid4().hex
    await _in_vector_sets(url, prefix)
    with redis.Redis.from_url(url) as client:
        for lost in (f"{{{prefix}}}:vs:e:{digest('there')}", f"{{{prefix}}}:index"):
            store = RedisAutoStore(url, prefix=prefix, timeout=20)
            await Either(store, form).put(made("there"), EAST)
            assert isinstance(store.chosen, VectorSetStore)
            assert client.delete(lost)
            await store.aclose()
        last = RedisAutoStore(url, prefix=prefix, timeout=20)
        assert await found(Either(last, form)) == [digest("there")]
        await last.aclose()


@pytest.mark.parametrize("server", REDIS_8)
def test_processes_that_choose_at_once_agree(server, request, monkeypatch):
    url, prefix = request.getfixturevalue(f"{server}_url"), uuid.uuid4().hex
    first, other = (RedisAutoStore(url, prefix=prefix, timeout=20) for _ in range(2))
    looked = first._in_use

    def looked_late(able):
        kind = yield from looked(able)
        # Somebody else knew more, and was faster.
        with redis.Redis.from_url(url) as client:
            client.set(f"{{{prefix}}}:index", b"vectorset")
        return kind

    monkeypatch.setattr(first, "_in_use", looked_late)
    for store in (first, other):
        assert store.get(digest("a"), now=NOW) is None
        assert isinstance(store.chosen, VectorSetStore)
        store.close()


async def test_a_user_that_may_ask_nothing_of_the_server_may_still_search(user, redis8_url, form):
    user.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "~*", "+@all", "-command", "-info")
    store = RedisAutoStore(_guest(redis8_url), prefix=uuid.uuid4().hex, timeout=20)
    either = Either(store, form)
    await either.put(made("a"), EAST)
    assert await found(either) == [digest("a")]
    assert isinstance(store.chosen, RedisNearStore)
    await store.aclose()


async def test_a_wrong_password_is_no_answer(redis_like_url, form):
    url = redis_like_url.replace("redis://", "redis://nobody:wrong@")
    store = RedisAutoStore(url, timeout=20)
    with pytest.raises(StoreError):
        await Either(store, form).get(digest("a"), now=NOW)
    assert store.chosen is None
    await store.aclose()


@pytest.mark.parametrize("server", REDIS_8)
def test_stores_of_all_kinds_share_a_prefix_and_leases_and_nothing_else(server, request):
    url, prefix = request.getfixturevalue(f"{server}_url"), uuid.uuid4().hex
    stores = [kind(url, prefix=prefix, timeout=20) for kind in (RedisNearStore, VectorSetStore, DoubleStore)]
    for number, store in enumerate(stores):
        store.put(made("same", payload=b"%d" % number, tags=["tag"]), EAST)
    for number, store in enumerate(stores):
        [match] = store.search(EAST, scope=HERE, limit=9, now=NOW)
        assert match.entry.payload == b"%d" % number
        assert store.lease("a", owner=f"{number}", seconds=1_000) is (number == 0)
    for number, store in enumerate(stores):
        assert store.clear(tags=["tag"]) == 1
        assert [other.get(digest("same"), now=NOW) is None for other in stores] == [n <= number for n in range(3)]
    for store in stores:
        store.close()


@pytest.mark.parametrize("kind", [VectorSetStore, RediSearchStore])
def test_a_server_that_cannot_names_what_can(kind, redis_like_url):
    store = kind(redis_like_url, prefix=uuid.uuid4().hex, timeout=20)
    for call in (lambda: store.search(EAST, scope=HERE, limit=1, now=NOW), lambda: store.put(made("a"), EAST)):
        with pytest.raises(ConfigError, match="RedisNearStore"):
            call()
    assert store.get(digest("a"), now=NOW) is None
    store.close()


@pytest.mark.parametrize("kind", [VectorSetStore, RediSearchStore])
def test_an_effort_of_nothing_is_refused(kind):
    with pytest.raises(ConfigError, match="ef"):
        kind("redis://localhost", ef=0)


def test_nobody_is_asked_when_a_cache_is_made():
    for index in ("auto", "near", "vectorset", "redisearch"):
        SemanticRedisCache(f"redis://127.0.0.1:{free_port()}", index=index).close()


def test_a_client_of_the_callers_is_what_asks_and_serves(redis_like_url):
    with redis.Redis.from_url(redis_like_url) as client:
        store = redis_store(client=client)
        before = client.info("stats")["total_connections_received"]
        store.put(made("a"), EAST)
        asyncio.run(_found_and_closed(store))
        assert client.info("stats")["total_connections_received"] <= before + 1
        assert client.ping()


async def _found_and_closed(store: RedisAutoStore) -> None:
    assert digest("a") in [match.entry.id for match in await store.asearch(EAST, scope=HERE, limit=99, now=NOW)]
    await store.aclose()
