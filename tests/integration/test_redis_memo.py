"""`RedisMemoEmbedder`: vectors that processes share, and a server that may fail."""

from __future__ import annotations

import logging
import uuid

import numpy as np
import pytest
import redis
from fakes import FORMS, Clock, CountingEmbedder, Either
from servers import free_port

from dispatch_core import ConfigError, EmbeddingError, HashingEmbedder, MemoEmbedder, RedisMemoEmbedder

SECRET = "the secret text"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


async def test_what_one_has_embedded_another_need_not(redis_like_url, prefix, form):
    first, second = CountingEmbedder(8), CountingEmbedder(8)
    one = RedisMemoEmbedder(first, redis_like_url, prefix=prefix, timeout=20)
    two = RedisMemoEmbedder(second, redis_like_url, prefix=prefix, timeout=20)
    assert np.array_equal(await Either(one, form).embed(["a", "b", "a"]), HashingEmbedder(8).embed(["a", "b", "a"]))
    rows = await Either(two, form).embed(["b", "c", "a"])
    assert np.array_equal(rows, HashingEmbedder(8).embed(["b", "c", "a"]))
    assert (first.calls, second.calls) == ([["a", "b"]], [["c"]])
    assert (two.stats().exact_hits, two.stats().misses, two.stats().failures) == (2, 1, 0)
    rows[:] = 0
    assert np.linalg.norm((await Either(two, form).embed(["b"]))[0]) == pytest.approx(1)
    for memo in (one, two):
        await memo.aclose()


async def test_another_model_has_other_vectors_and_no_key_shows_a_text(redis_like_url, prefix, form):
    made = [RedisMemoEmbedder(CountingEmbedder(dims), redis_like_url, prefix=prefix, timeout=20) for dims in (8, 16)]
    for memo in made:
        assert (await Either(memo, form).embed([SECRET])).shape == (1, memo.dims)
        await memo.aclose()
    with redis.Redis.from_url(redis_like_url) as client:
        keys = client.keys(f"{{{prefix}}}:*")
        assert len(keys) == 2
        assert not any(b"secret" in key or b"hashing" in key for key in keys)
        assert sorted(len(client.get(key)) for key in keys) == [32, 64]
        assert all(0 < client.ttl(key) <= 7 * 86_400 for key in keys)


async def test_a_vector_lives_as_long_as_it_is_told_to(redis_like_url, prefix, form):
    for ttl, left in ((None, -1), (100.0, 100)):
        memo = RedisMemoEmbedder(CountingEmbedder(8), redis_like_url, prefix=prefix, ttl=ttl, timeout=20)
        await Either(memo, form).embed([str(ttl)])
        await memo.aclose()
        with redis.Redis.from_url(redis_like_url) as client:
            assert left - 50 <= client.ttl(memo._key(str(ttl))) <= left


@pytest.mark.parametrize("value", [b"", b"four", b"\x00" * 32, b"\xff" * 32, b"\x7f" * 32, b"x" * 33])
async def test_a_value_that_is_no_vector_is_embedded_anew(redis_like_url, prefix, form, value):
    counting = CountingEmbedder(8)
    memo = RedisMemoEmbedder(counting, redis_like_url, prefix=prefix, timeout=20)
    with redis.Redis.from_url(redis_like_url) as client:
        client.set(memo._key("a"), value)
        assert np.array_equal(await Either(memo, form).embed(["a"]), HashingEmbedder(8).embed(["a"]))
        assert len(client.get(memo._key("a"))) == 32
    await memo.aclose()


async def test_a_server_that_is_not_there_is_a_miss_logged_once_and_left_alone(form, caplog):
    clock, counting = Clock(), CountingEmbedder(8)
    memo = RedisMemoEmbedder(counting, f"redis://127.0.0.1:{free_port()}", clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            assert (await Either(memo, form).embed([SECRET])).shape == (1, 8)
    assert len(counting.calls) == 4
    assert memo.stats().failures == 8
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "the memo of embeddings failed",
        "the memo of embeddings is paused",
    ]
    assert "secret" not in caplog.text
    await memo.aclose()


async def test_a_server_that_comes_back_is_used_again(own_server, form):
    clock, counting = Clock(), CountingEmbedder(8)
    memo = RedisMemoEmbedder(counting, own_server.url, clock=clock, timeout=20)
    either = Either(memo, form)
    own_server.stop()
    for _ in range(2):
        await either.embed(["a"])
    own_server.start()
    clock.now += 60
    await either.embed(["a"])
    await either.embed(["a"])
    assert len(counting.calls) == 3
    await memo.aclose()


async def test_a_failure_of_the_embedder_is_no_failure_of_the_memo(redis_like_url, prefix, form):
    counting = CountingEmbedder(8)
    memo = RedisMemoEmbedder(counting, redis_like_url, prefix=prefix, timeout=20)
    counting.error = EmbeddingError("down")
    with pytest.raises(EmbeddingError, match="down"):
        await Either(memo, form).embed(["a"])
    counting.error = None
    assert (await Either(memo, form).embed(["a"])).shape == (1, 8)
    assert memo.stats().failures == 0
    await memo.aclose()


async def test_a_memo_of_the_process_stands_in_front(redis_like_url, prefix, form):
    behind = RedisMemoEmbedder(CountingEmbedder(8), redis_like_url, prefix=prefix, timeout=20)
    front = Either(MemoEmbedder(behind), form)
    for _ in range(3):
        await front.embed(["a"])
    assert (behind.stats().exact_hits, behind.stats().misses) == (0, 1)
    await behind.aclose()


def test_a_client_of_the_callers_is_used_and_stays_open(valkey_url, prefix):
    with redis.Redis.from_url(valkey_url) as client:
        memo = RedisMemoEmbedder(CountingEmbedder(8), client, prefix=prefix)
        memo.embed(["a"])
        memo.close()
        assert client.exists(memo._key("a"))


@pytest.mark.parametrize("ttl", [0, -1, float("inf")])
def test_a_life_that_is_none_is_refused(ttl):
    with pytest.raises(ConfigError):
        RedisMemoEmbedder(HashingEmbedder(), "redis://localhost", ttl=ttl)
