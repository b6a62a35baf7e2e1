"""What a store over vector sets promises besides: no ghosts, no leaks, one round trip, the right neighbour."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
import redis
from fakes import Either, made, unit
from places import EAST, HERE, NORTH, NOW, found
from servers import REDIS_8, Server

from dispatch_core import DimensionMismatch, StoreError, VectorSetStore
from dispatch_core.keys import digest


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture(params=REDIS_8)
def url(request: pytest.FixtureRequest) -> str:
    address: str = request.getfixturevalue(f"{request.param}_url")
    return address


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as given:
        yield given


@pytest.fixture
async def store(url, form, prefix):
    either = Either(VectorSetStore(url, prefix=prefix, timeout=20), form)
    yield either
    await either.target.aclose()


def _row(prefix: str, name: str) -> str:
    return f"{{{prefix}}}:vs:e:{digest(name)}"


def _set(prefix: str, scope: str = "scope") -> str:
    return f"{{{prefix}}}:vs:v:{digest(scope)}"


def _size(client: redis.Redis, prefix: str) -> int:
    return int(client.execute_command("VCARD", _set(prefix)))


async def test_what_the_server_expired_or_evicted_is_not_found_and_removed_on_sight(store, client, prefix):
    for name in ("a", "b"):
        await store.put(made(name), EAST)
    assert client.delete(_row(prefix, "a"))
    assert _size(client, prefix) == 2
    assert await found(store) == [digest("b")]
    assert _size(client, prefix) == 1


async def test_what_is_gone_never_hides_what_is_there(store, client, prefix):
    for number in range(50):
        await store.put(made(f"{number}"), unit(1, number / 1_000, 0))
    await store.put(made("last"), NORTH)
    client.delete(*(_row(prefix, f"{number}") for number in range(50)))
    assert await found(store, limit=1) == [digest("last")]
    assert _size(client, prefix) == 1


async def test_expired_by_the_askers_clock_alone_it_stays_for_others(store, client, prefix):
    for number in range(20):
        await store.put(made(f"{number}", expires=NOW + 5), EAST)
    await store.put(made("last"), NORTH)
    assert await found(store, limit=1, now=NOW + 6) == [digest("last")]
    assert len(await found(store, limit=99, now=NOW + 4)) == 21


async def test_puts_remove_elements_that_nobody_meets(store, client, prefix):
    for number in range(60):
        await store.put(made(f"{number}"), unit(number, 1, 0))
    client.delete(*(_row(prefix, f"{number}") for number in range(60)))
    for number in range(200):
        await store.put(made(f"new {number}"), unit(0, number, 1))
    assert _size(client, prefix) < 230


async def test_a_set_lasts_as_long_as_the_last_of_its_entries(store, client, prefix):
    def ends() -> int:
        return int(client.execute_command("PEXPIRETIME", _set(prefix)))

    for name, expires in (("a", NOW + 20), ("b", NOW + 10), ("c", NOW + 15)):
        await store.put(made(name, expires=expires), EAST)
        assert ends() == (NOW + 20) * 1000
    await store.touch(digest("b"), expires=NOW + 30, now=NOW)
    assert ends() == (NOW + 30) * 1000
    await store.touch(digest("b"), expires=NOW + 5, now=NOW)
    assert ends() == (NOW + 30) * 1000
    await store.put(made("d"), EAST)
    assert ends() == -1
    await store.put(made("e", expires=NOW + 9), EAST)
    assert ends() == -1
    assert await store.clear() == 5
    assert client.keys(f"{{{prefix}}}:vs:*") == []


async def test_elements_whose_entries_are_gone_do_not_decide_on_the_length(store, client, prefix):
    for name in ("a", "b"):
        await store.put(made(name), EAST)
    client.delete(_row(prefix, "a"))
    with pytest.raises(DimensionMismatch):
        await store.put(made("c"), unit(1, 0))
    client.delete(_row(prefix, "b"))
    await store.put(made("c"), unit(1, 0))
    assert await found(store, unit(1, 0)) == [digest("c")]


async def test_an_evicted_entry_that_comes_back_elsewhere_leaves_no_ghost(store, client, prefix):
    await store.put(made("a"), EAST)
    client.delete(_row(prefix, "a"))
    await store.put(made("a", scope="elsewhere"), EAST)
    assert await found(store) == []
    assert await found(store, scope=digest("elsewhere")) == [digest("a")]
    await store.put(made("a"), None)
    assert await found(store) == []
    assert await found(store, scope=digest("elsewhere")) == []


async def test_a_search_and_its_answers_are_one_command(store, client, prefix):
    for number in range(20):
        await store.put(made(f"{number}"), unit(1, number, 0))
    await found(store)
    client.config_resetstat()
    assert len(await found(store, limit=8)) == 8
    calls = client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 1
    assert calls["cmdstat_hgetall"]["calls"] == 8
    assert "cmdstat_eval" not in calls


async def test_a_server_that_forgot_the_scripts_is_told_again(store, client):
    await store.put(made("a"), EAST)
    for _ in range(2):
        client.script_flush()
        assert await found(store) == [digest("a")]
    client.script_flush()
    assert await store.clear() == 1


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_of_the_callers_serves_both_protocols(url, form, prefix, protocol):
    with redis.Redis.from_url(url, protocol=protocol) as client:
        store = Either(VectorSetStore(client=client, prefix=prefix), form)
        await store.put(made("a", tags=["t"]), EAST)
        [match] = await store.search(unit(1, 1, 0), scope=HERE, limit=1, now=NOW)
        assert (match.entry, match.score) == (made("a", tags=["t"]), pytest.approx(0.5**0.5, abs=1e-6))
        assert await store.clear(tags=["t"]) == 1
        await store.target.aclose()
        assert client.ping()


async def test_all_keys_are_in_one_slot_of_a_cluster(store, client, prefix):
    await store.put(made("a"), EAST)
    await store.lease("a", owner="one", seconds=1_000)
    keys = [key for key in client.keys("*") if prefix.encode() in key]
    assert len(keys) == 3
    assert all(key.startswith(b"{" + prefix.encode() + b"}:") for key in keys)


async def test_the_graph_finds_the_near_duplicate(url, client, prefix, form):
    chance = np.random.default_rng(5)
    rows = chance.normal(size=(1_500, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    store = VectorSetStore(url, prefix=prefix, timeout=20)
    for number, row in enumerate(rows):
        store.put(made(f"{number}"), row)
    asked = chance.choice(1_500, size=100, replace=False)
    near = rows[asked] + chance.normal(size=(100, 24), scale=0.02).astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    for number, vector in zip(asked, near, strict=True):
        matches = await Either(store, form).search(vector, scope=HERE, limit=8, now=NOW)
        assert matches[0].entry.id == digest(f"{number}")
        assert matches[0].score == pytest.approx(float(rows[number] @ vector), abs=1e-6)
        assert [match.score for match in matches] == sorted((match.score for match in matches), reverse=True)
    await store.aclose()


@pytest.mark.parametrize("kind", REDIS_8)
async def test_a_full_server_that_may_not_evict_refuses_and_can_be_cleared(kind, form):
    server = Server(kind).start()
    store = Either(VectorSetStore(server.url, timeout=20), form)
    await store.put(made("a", payload=b"old"), EAST)
    await store.put(made("b", payload=b"old"), None)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        for name, vector in (("a", NORTH), ("b", None), ("c", NORTH)):
            with pytest.raises(StoreError, match="maxmemory"):
                await store.put(made(name, payload=b"new"), vector)
        [match] = await store.search(EAST, scope=HERE, limit=9, now=NOW)
        assert (match.entry.payload, match.score) == (b"old", pytest.approx(1.0))
        assert (await store.get(digest("b"), now=NOW)).payload == b"old"
        assert await store.clear() == 2
        client.config_set("maxmemory", 0)
    await store.put(made("c"), EAST)
    assert await found(store) == [digest("c")]
    await store.target.aclose()
    server.stop()
