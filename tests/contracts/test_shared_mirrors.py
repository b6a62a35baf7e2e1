"""What a mirror of a Redis promises when things break: gaps in the journal, flushed, full and lost servers."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
import time
import uuid
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import redis
import redis.asyncio
from fakes import Either, made, unit
from places import EAST, HERE, NORTH, NOW
from servers import Server, free_port

from dispatch_core import ConfigError, RedisNearStore, StoreError
from dispatch_core._flow import Flow
from dispatch_core.keys import digest
from dispatch_core.stores import _near, redisnear


@pytest.fixture
def client(redis_like_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_like_url) as given:
        yield given


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
async def both(redis_like_url, form, prefix):
    """Two stores on one server."""
    pair = [Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form) for _ in range(2)]
    yield pair
    for either in pair:
        await either.target.aclose()


async def _found(store: Either) -> list[str]:
    return sorted(m.entry.id for m in await store.search(EAST, scope=HERE, limit=10_000, now=NOW))


def _key(prefix: str, name: str) -> str:
    return f"{{{prefix}}}:{name}"


def _ids(*names: str) -> list[str]:
    return sorted(digest(name) for name in names)


# Redis: the journal


async def test_a_mirror_that_fell_behind_the_journal_loads_all_anew(both, client, prefix, monkeypatch):
    monkeypatch.setattr(redisnear, "_JOURNAL_LENGTH", 10)
    one, other = both
    await one.put(made("first"), EAST)
    await one.put(made("second"), EAST)
    assert await _found(other) == _ids("first", "second")
    names = [f"{number}" for number in range(300)]
    await one.delete(digest("first"))
    for name in names:
        await one.put(made(name), EAST)
    client.xtrim(_key(prefix, "nlog"), maxlen=5, approximate=False)
    assert await _found(other) == _ids("second", *names)
    assert await _found(one) == _ids("second", *names)


async def test_a_journal_longer_than_a_page_is_read_to_its_end(both, monkeypatch):
    monkeypatch.setattr(_near, "_NEWS", 7)
    monkeypatch.setattr(_near, "_PAGE", 7)
    one, other = both
    assert await _found(other) == []
    names = [f"{number}" for number in range(30)]
    for name in names:
        await one.put(made(name), EAST)
    assert await _found(other) == _ids(*names)
    await other.clear()
    assert await _found(one) == []


async def test_a_lost_journal_is_noticed(both, client, prefix):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("a", "b")
    assert client.delete(_key(prefix, "nlog"))
    await one.delete(digest("a"))
    assert await _found(other) == _ids("b")
    await one.put(made("c"), EAST)
    assert client.delete(_key(prefix, "nlog"))
    assert await _found(other) == _ids("b", "c")


async def test_a_lost_sequence_is_noticed(both, client, prefix):
    one, other = both
    for name in ("a", "b", "c"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("a", "b", "c")
    assert client.delete(_key(prefix, "nseq"))
    await one.put(made("d"), EAST)
    await one.delete(digest("a"))
    assert await _found(other) == _ids("b", "c", "d")
    assert await _found(one) == _ids("b", "c", "d")


async def test_entries_the_server_evicted_are_not_found(both, client, prefix):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("a", "b")
    assert client.delete(_key(prefix, f"n:{digest('a')}"))
    for store in (one, other, one):
        assert await _found(store) == _ids("b")


async def test_a_flushed_server_leaves_no_ghosts_and_works_on(both, client):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("a", "b")
    client.flushall()
    assert await _found(one) == []
    assert await one.get(digest("a"), now=NOW) is None
    await other.put(made("c"), EAST)
    await other.put(made("d"), EAST)
    assert await _found(one) == _ids("c", "d")
    assert await _found(other) == _ids("c", "d")


async def test_a_server_flushed_and_filled_again_is_loaded_anew(both, client):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("a", "b")
    client.flushall()
    for name in ("c", "d", "e"):
        await one.put(made(name), EAST)
    assert await _found(other) == _ids("c", "d", "e")


async def test_prefixes_that_look_like_patterns_are_kept_apart(redis_like_url, form):
    stores = [Either(RedisNearStore(redis_like_url, prefix=p, timeout=20), form) for p in ("a*", "a?", "ab", "[ab]*")]
    for store in stores:
        await store.put(made("a"), EAST)
    await stores[0].clear()
    assert [len(await _found(store)) for store in stores] == [0, 1, 1, 1]
    for store in stores:
        await store.clear()
        await store.target.aclose()


async def test_a_hundred_askers_load_the_mirror_once(redis_like_url, client, prefix):
    writer = RedisNearStore(redis_like_url, prefix=prefix, timeout=20)
    for number in range(20):
        await writer.aput(made(f"{number}"), EAST)
    newcomer = Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), "async")
    client.config_resetstat()
    found = await asyncio.gather(*(_found(newcomer) for _ in range(100)))
    assert {len(ids) for ids in found} == {20}
    assert client.info("commandstats")["cmdstat_scan"]["calls"] <= 5
    await newcomer.target.aclose()
    await writer.aclose()


async def test_what_a_process_writes_itself_is_not_read_again(redis_like_url, client, prefix):
    store = RedisNearStore(redis_like_url, prefix=prefix, timeout=20)
    await store.aput(made("first"), EAST)
    assert len(await store.asearch(EAST, scope=HERE, limit=9, now=NOW)) == 1
    client.config_resetstat()
    await asyncio.gather(*(store.aput(made(f"{number}"), EAST) for number in range(300)))
    # The sequence by each change and each round trip, and no row.
    assert client.info("stats")["keyspace_hits"] < 300 + 100
    assert client.info("commandstats")["cmdstat_mget"]["calls"] < 30
    assert len(await store.asearch(EAST, scope=HERE, limit=999, now=NOW)) == 301
    await store.aclose()


async def test_a_hundred_askers_read_once_what_another_process_wrote(redis_like_url, client, prefix):
    one, other = (Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), "async") for _ in range(2))
    assert await _found(other) == []
    for number in range(100):
        await one.put(made(f"{number}"), EAST)
    client.config_resetstat()
    found = await asyncio.gather(*(other.target.asearch(EAST, scope=HERE, limit=1, now=NOW) for _ in range(100)))
    assert {len(matches) for matches in found} == {1}
    # Twice: by the first, who goes alone, and by one of those who came meanwhile; and what each of them found.
    assert client.info("stats")["keyspace_hits"] < 500
    await one.target.aclose()
    await other.target.aclose()


async def test_who_gives_up_leaves_others_what_he_began_for_all(redis_like_url, prefix):
    one, other = (RedisNearStore(redis_like_url, prefix=prefix, timeout=20) for _ in range(2))
    assert await other.asearch(EAST, scope=HERE, limit=9, now=NOW) == []
    await one.aput(made("a"), EAST)
    asking = [asyncio.create_task(other.asearch(EAST, scope=HERE, limit=9, now=NOW)) for _ in range(20)]
    for begun in range(12):
        await asyncio.sleep(0)
        asking[begun].cancel()
    answers = await asyncio.gather(*asking[12:])
    assert {len(matches) for matches in answers} == {1}
    await one.aclose()
    await other.aclose()


async def test_a_touch_is_one_command_and_reading_of_it_no_other(both, client):
    one, other = both
    await one.put(made("a", expires=NOW + 6), EAST)
    assert await _found(other) == _ids("a")
    client.config_resetstat()
    await one.touch(digest("a"), expires=NOW + 20, now=NOW)
    await other.target.asearch(EAST, scope=digest("elsewhere"), limit=1, now=NOW)
    # What the server's statistics name besides is called within the script.
    calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}
    assert {calls.get(name, 0) for name in ("evalsha", "mget", "xrange")} == {1}
    assert {calls.get(name, 0) for name in ("hmget", "hgetall", "scan")} == {0}
    [match] = await other.search(EAST, scope=HERE, limit=1, now=NOW + 10)
    assert match.entry.expires == NOW + 20


async def test_a_touch_moves_the_servers_own_expiry(redis_like_url, client, prefix, form):
    store = Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form)
    await store.put(made("a", expires=NOW + 6), EAST)
    key = _key(prefix, f"n:{digest('a')}")
    for expires, milliseconds in (
        (NOW + 20.5, int(NOW * 1000) + 20_500),
        (None, -1),
        (NOW + 1, int(NOW * 1000) + 1_000),
    ):
        await store.touch(digest("a"), expires=expires, now=NOW)
        assert client.execute_command("PEXPIRETIME", key) == milliseconds
    await store.target.aclose()


async def test_what_is_rewritten_while_a_clear_is_under_way_is_judged_as_it_is_by_then(redis_like_url, prefix):
    with redis.Redis.from_url(redis_like_url) as shared:
        store = RedisNearStore(client=shared, prefix=prefix)
        for name in ("a", "b", "c", "d"):
            store.put(made(name, tags=["tag"]), EAST)
        flow, reply, removed = store._clear(digest("ours"), frozenset(["tag"])), None, None
        while removed is None:
            try:
                step = flow.send(reply)
            except StopIteration as done:
                removed = done.value
            else:
                if step.args[0][0][:2] == ("EVALSHA", redisnear._CHANGE.sha):
                    store.put(made("a", tags=["other"]), EAST)
                    store.put(made("b", tags=["tag"], namespace="theirs"), EAST)
                    store.delete(digest("c"))
                reply = step.call(*step.args)
        assert removed == 1
        assert [store.get(digest(name), now=NOW) is None for name in "abcd"] == [False, False, True, True]


async def test_a_clear_longer_than_a_page_forgets_all(both, monkeypatch):
    monkeypatch.setattr(_near, "_PAGE", 20)
    monkeypatch.setattr(redisnear, "_DELETIONS", 7)
    one, other = both
    for number in range(100):
        await one.put(made(f"{number}", tags=["even" if number % 2 == 0 else "odd"]), EAST)
    assert await other.clear(tags=["even"]) == 50
    assert len(await _found(one)) == 50
    assert await other.clear() == 50
    assert await _found(one) == []


async def test_rows_that_are_not_of_this_version_are_no_entries(redis_like_url, client, prefix, form):
    store = Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form)
    await store.put(made("a"), EAST)
    row = client.get(_key(prefix, f"n:{digest('a')}"))
    foreign = {
        "later": b"D2" + row[2:],
        "cut": row[:30],
        "short": row[:-9],
        "empty": b"",
        "noise": b"D1" + b"\xff" * 90,
    }
    for name, value in foreign.items():
        client.set(_key(prefix, f"n:{digest(name)}"), value)
    newcomer = Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form)
    for name in foreign:
        assert await newcomer.get(digest(name), now=NOW) is None
    for name in ("later", "cut", "empty", "noise"):
        await newcomer.touch(digest(name), expires=NOW + 9, now=NOW)
    assert await _found(newcomer) == _ids("a")
    assert await newcomer.clear(tags=["tag"]) == 0
    assert await newcomer.get(digest("a"), now=NOW) == made("a")
    await newcomer.put(made("noise"), NORTH)
    assert await _found(store) == _ids("a", "noise")
    assert await newcomer.clear() == 1 + len(foreign)
    assert client.keys(_key(prefix, "n:*")) == []
    for each in (store, newcomer):
        await each.target.aclose()


async def test_rows_of_the_first_version_are_ignored_and_left(redis_like_url, client, prefix, form):
    before = {"namespace": digest("ours"), "scope": HERE, "text": b"text", "payload": b"payload", "input_tokens": 3}
    before |= {"output_tokens": 4, "created": "1000.25", "expires": "", "vector": EAST.tobytes()}
    client.hset(_key(prefix, f"e:{digest('a')}"), mapping=before)
    store = Either(RedisNearStore(redis_like_url, prefix=prefix, timeout=20), form)
    assert await store.get(digest("a"), now=NOW) is None
    assert await _found(store) == []
    assert await store.clear() == 0
    assert client.exists(_key(prefix, f"e:{digest('a')}"))
    await store.target.aclose()


async def test_a_full_server_that_may_not_evict_refuses_and_can_be_cleared(own_server: Server, form):
    store = Either(RedisNearStore(own_server.url, timeout=20), form)
    await store.put(made("a", payload=b"old"), EAST)
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        for name in ("a", "b"):
            with pytest.raises(StoreError, match="maxmemory"):
                await store.put(made(name, payload=b"new"), NORTH)
        with pytest.raises(StoreError, match="maxmemory"):
            await store.lease("a", owner="one", seconds=9)
        [match] = await store.search(EAST, scope=HERE, limit=9, now=NOW)
        assert (match.entry.payload, match.score) == (b"old", pytest.approx(1.0))
        await store.release("a", owner="one")
        assert await store.clear() == 1
        client.config_set("maxmemory", 0)
    await store.put(made("b"), EAST)
    assert await _found(store) == _ids("b")
    await store.target.aclose()


async def test_a_server_that_evicts_keeps_what_is_found_true(own_server: Server, form):
    store = Either(RedisNearStore(own_server.url, timeout=20), form)
    with redis.Redis.from_url(own_server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lfu")
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)
        for number in range(150):
            await store.put(made(f"{number}", payload=b"x" * 50_000), EAST)
            for match in await store.search(EAST, scope=HERE, limit=3, now=NOW):
                assert match.entry.payload == b"x" * 50_000
        assert client.info("stats")["evicted_keys"] > 50
        for _ in range(2):
            there = [id for id in _ids(*map(str, range(150))) if await store.get(id, now=NOW) is not None]
            assert set(await _found(store)) <= set(there)
        assert 0 < len(there) < 100
    await store.target.aclose()


def _drive(flows: list[Flow[object]], chance: random.Random) -> None:
    """Let the callers take their steps in turns, in an order of chance; a pause takes no time."""
    todo: list[tuple[Flow[object], object]] = [(flow, None) for flow in flows]
    while todo:
        flow, reply = todo.pop(chance.randrange(len(todo)))
        try:
            step = flow.send(reply)
        except StopIteration:
            continue
        if step.call is time.sleep:
            todo.append((flow, None))
        else:
            # The server answers at once; the caller learns of it when its turn comes.
            todo.append((flow, step.call(*step.args, **step.kwargs)))


def _some_calls(store: RedisNearStore, chance: random.Random) -> list[Flow[object]]:
    flows: list[Flow[object]] = []
    for _ in range(12):
        name = chance.choice("abc")
        kind = chance.choice(["put", "put", "put", "search", "search", "plain", "touch", "touch", "delete"])
        if kind == "search":
            flows.append(store._search(EAST, HERE, 9, NOW))
        elif kind == "touch":
            flows.append(store._touch(digest(name), NOW + chance.randrange(1, 10), NOW))
        elif kind == "delete":
            flows.append(store._delete(digest(name)))
        else:
            angle = chance.uniform(0, math.tau)
            vector = unit(math.cos(angle), math.sin(angle), 0) if kind == "put" else None
            flows.append(store._put(made(name, payload=b"" if vector is None else vector.tobytes()), vector))
    return flows


def test_callers_in_any_order_leave_mirrors_that_agree_with_the_server(redis_like_url, client, monkeypatch):
    monkeypatch.setattr(_near, "_NEWS", 3)
    monkeypatch.setattr(_near, "_PAGE", 3)
    with redis.Redis.from_url(redis_like_url) as shared:
        for seed in range(40):
            chance = random.Random(seed)
            client.flushall()
            stores = [RedisNearStore(client=shared) for _ in range(2)]
            snapshot: dict[bytes, bytes] = {}
            for _ in range(4):
                if chance.random() < 0.3:
                    client.flushall()
                    for key, value in snapshot.items():
                        client.restore(key, 0, value)
                if chance.random() < 0.4:
                    snapshot = {key: client.dump(key) for key in sorted(client.keys())}
                if chance.random() < 0.3:
                    doomed = [key for key in sorted(client.keys()) if chance.random() < 0.7]
                    for key in doomed:
                        client.delete(key)
                _drive([flow for store in stores for flow in _some_calls(store, chance)], chance)
                for store in stores:
                    matches = {m.entry.id: m for m in store.search(EAST, scope=HERE, limit=9, now=NOW)}
                    entries = [store.get(digest(name), now=NOW) for name in "abc"]
                    expected = {entry.id: entry for entry in entries if entry and entry.payload}
                    assert set(matches) == set(expected), f"seed {seed}"
                    for id, entry in expected.items():
                        written = np.frombuffer(entry.payload, dtype=np.float32)
                        assert matches[id].score == pytest.approx(float(written @ EAST), abs=1e-6), f"seed {seed}"
                    for later in range(1, 10):
                        fresh = {id for id, entry in expected.items() if entry.fresh(NOW + later)}
                        last = store.search(EAST, scope=HERE, limit=9, now=NOW + later)
                        assert {m.entry.id for m in last} == fresh, f"seed {seed}"


# Redis: the connection


async def test_a_restarted_server_fails_meanwhile_and_works_afterwards(own_server: Server, form):
    store = Either(RedisNearStore(own_server.url, timeout=5), form)
    await store.put(made("a"), EAST)
    own_server.stop()
    for call in (
        store.get(digest("a"), now=NOW),
        store.search(EAST, scope=HERE, limit=1, now=NOW),
        store.put(made("b"), EAST),
        store.put(made("b"), None),
        store.delete(digest("a")),
        store.touch(digest("a"), expires=NOW + 9, now=NOW),
        store.clear(),
        store.clear(tags=["tag"]),
        store.lease("a", owner="one", seconds=9),
        store.release("a", owner="one"),
    ):
        with pytest.raises(StoreError) as failed:
            await call
        assert failed.value.__cause__ is not None
    own_server.start()
    assert await _found(store) == []
    await store.put(made("c"), EAST)
    assert await _found(store) == _ids("c")
    await store.target.aclose()


@pytest.mark.parametrize("name", ["a", "b"])
async def test_a_put_that_failed_is_not_found(own_server: Server, form, name):
    store = Either(RedisNearStore(own_server.url, timeout=5), form)
    await store.put(made("a"), EAST)
    own_server.stop()
    with pytest.raises(StoreError):
        await store.put(made(name, scope="elsewhere"), EAST)
    own_server.start()
    assert await store.search(EAST, scope=digest("elsewhere"), limit=9, now=NOW) == []
    await store.target.aclose()


async def test_an_unreachable_server_is_a_store_error(form):
    store = Either(RedisNearStore(f"redis://127.0.0.1:{free_port()}/0"), form)
    with pytest.raises(StoreError, match="Redis failed: ConnectionError"):
        await store.get(digest("a"), now=NOW)
    await store.target.aclose()


async def test_a_server_that_accepts_and_never_answers_is_given_up(form):
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = Either(RedisNearStore(f"redis://127.0.0.1:{port}/0", timeout=0.05), form)
    with pytest.raises(StoreError):
        await store.get(digest("a"), now=NOW)
    await store.target.aclose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("given", [False, True], ids=["url", "client"])
def test_a_loop_that_ends_closes_its_connections(own_server: Server, given):
    with redis.Redis.from_url(own_server.url) as client:
        store = RedisNearStore(client=client) if given else RedisNearStore(own_server.url, timeout=20)

        async def use() -> None:
            await store.aput(made("a"), EAST)
            assert await store.aget(digest("a"), now=NOW) == made("a")

        for _ in range(3):
            asyncio.run(use())
        gc.collect()
        assert store.get(digest("a"), now=NOW) == made("a")
    store.close()


def test_clients_that_decode_are_refused():
    with pytest.raises(ConfigError, match="decode_responses"):
        RedisNearStore("redis://127.0.0.1:1/0?decode_responses=true")
    with pytest.raises(ConfigError, match="decode_responses"):
        RedisNearStore(client=redis.Redis(decode_responses=True))
    with pytest.raises(ConfigError, match="decode_responses"):
        RedisNearStore(client=redis.Redis(), async_client=redis.asyncio.Redis(decode_responses=True))


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="nothing"):
        RedisNearStore()
    with pytest.raises(ConfigError, match="asynchronous client alone"):
        RedisNearStore(async_client=redis.asyncio.Redis())
    with pytest.raises(ConfigError, match="not a Redis URL"):
        RedisNearStore("http://127.0.0.1")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_of_the_callers_serves_both_forms_and_stays_open(redis_like_url, form, protocol, prefix):
    with redis.Redis.from_url(redis_like_url, protocol=protocol) as client:
        store = Either(RedisNearStore(client=client, prefix=prefix), form)
        await store.put(made("a"), EAST)
        await store.put(made("b"), NORTH)
        assert await _found(store) == _ids("a", "b")
        await store.clear()
        await store.target.aclose()
        assert client.ping()


async def test_an_async_client_of_the_callers_is_used_and_stays_open(redis_like_url, prefix):
    with redis.Redis.from_url(redis_like_url) as client:
        async with redis.asyncio.Redis.from_url(redis_like_url, client_name=prefix) as async_client:
            store = RedisNearStore(client=client, async_client=async_client, prefix=prefix)
            await store.aput(made("a"), EAST)
            assert prefix in [known["name"] for known in client.client_list()]
            await store.aclose()
            assert await async_client.ping()


async def test_closing_leaves_no_connection_open(redis_like_url, client, form):
    def connections() -> int:
        return len(client.client_list())

    before = connections()
    store = Either(RedisNearStore(redis_like_url, prefix=uuid.uuid4().hex), form)
    await store.put(made("a"), EAST)
    assert connections() > before
    await store.close()
    while connections() > before:
        # The server notices a closed socket in its own time.
        await asyncio.sleep(0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_loops_that_ended_are_let_go_of(redis_like_url):
    store = RedisNearStore(redis_like_url, prefix=uuid.uuid4().hex)
    loops = []

    async def ask() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await store.aget(digest("a"), now=NOW)

    for _ in range(4):
        asyncio.run(ask())
    gc.collect()
    assert [loop() is None for loop in loops[:-1]] == [True] * 3
    asyncio.run(store.aclose())
    gc.collect()


def test_more_threads_than_connections_wait_for_one(redis_like_url):
    store = RedisNearStore(f"{redis_like_url}?max_connections=2", prefix=uuid.uuid4().hex, timeout=20)
    start = threading.Barrier(16)
    found: list[object] = []

    def ask() -> None:
        start.wait()
        found.append(store.get(digest("a"), now=NOW))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 16
    store.close()
