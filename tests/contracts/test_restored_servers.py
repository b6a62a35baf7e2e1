"""Servers that come back with older data: a restored snapshot, a replica that had not heard the last of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from fakes import Either, made
from places import EAST, HERE, NORTH, NOW
from servers import REDIS_LIKE, Server

from dispatch_core import RedisNearStore
from dispatch_core.keys import digest


@pytest.fixture(params=REDIS_LIKE)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Of a server that can be told to load its snapshot."""
    server = Server(request.param, enable_debug_command="yes").start()
    with redis.Redis.from_url(server.url) as given:
        yield given
    server.stop()


@pytest.fixture
async def both(client, form):
    settings = client.get_connection_kwargs()
    url = f"redis://{settings['host']}:{settings['port']}/0"
    pair = [Either(RedisNearStore(url, timeout=20), form) for _ in range(2)]
    yield pair
    for either in pair:
        await either.target.aclose()


async def _found(store: Either) -> dict[str, float]:
    """Scores by id."""
    matches = await store.search(EAST, scope=HERE, limit=100, now=NOW)
    return {match.entry.id: round(match.score, 3) for match in matches}


def _restore(client: redis.Redis) -> None:
    """The server takes up its snapshot; connections stay."""
    client.execute_command("DEBUG", "RELOAD", "NOSAVE")


LOST, AFTERWARDS = 3, [1, 2, 3, 4, 7]


@pytest.mark.parametrize("after", AFTERWARDS)
async def test_numbers_that_were_used_again_are_other_changes(both, client, after):
    one, other = both
    await one.put(made("kept"), EAST)
    client.save()
    for number in range(LOST):
        await one.put(made(f"lost {number}"), EAST)
    assert len(await _found(one)) == 1 + LOST
    _restore(client)
    # What replaces an answer in another process, such as a rejection, must not stay unknown to this one.
    await other.put(made("kept"), NORTH)
    for number in range(after - 1):
        await other.put(made(f"new {number}"), EAST)
    expected = {digest("kept"): 0.0} | {digest(f"new {number}"): 1.0 for number in range(after - 1)}
    assert await _found(one) == expected
    assert await _found(other) == expected


@pytest.mark.parametrize("after", AFTERWARDS)
async def test_ones_own_writes_do_not_hide_that_numbers_were_used_again(both, client, after):
    one, other = both
    await one.put(made("kept"), EAST)
    client.save()
    for number in range(LOST):
        await one.put(made(f"lost {number}"), EAST)
    assert len(await _found(one)) == 1 + LOST
    _restore(client)
    for number in range(after):
        await other.put(made("kept" if number == 0 else f"new {number}"), NORTH)
    await one.put(made("own"), EAST)
    await one.touch(digest("own"), expires=NOW + 9, now=NOW)
    await one.put(made("own too"), EAST)
    expected = {digest("own"): 1.0, digest("own too"): 1.0, digest("kept"): 0.0}
    expected |= {digest(f"new {number}"): 0.0 for number in range(1, after)}
    assert await _found(one) == expected
    assert await _found(other) == expected


async def test_touches_and_deletions_are_changes_as_well(both, client):
    one, other = both
    for name in ("a", "b"):
        await one.put(made(name, expires=NOW + 5), EAST)
    client.save()
    await one.put(made("lost"), EAST)
    await one.put(made("lost too"), EAST)
    assert len(await _found(one)) == 4
    _restore(client)
    await other.touch(digest("a"), expires=NOW + 100, now=NOW)
    await other.delete(digest("b"))
    matches = await one.search(EAST, scope=HERE, limit=9, now=NOW + 50)
    assert [match.entry.id for match in matches] == [digest("a")]
    assert await _found(one) == {digest("a"): 1.0}


async def test_a_hundred_askers_see_what_the_server_has(both, client, form):
    one, other = both
    await one.put(made("kept"), EAST)
    client.save()
    await one.put(made("lost"), EAST)
    assert len(await _found(one)) == 2
    _restore(client)
    await other.put(made("kept"), NORTH)
    answers = await asyncio.gather(*(_found(one) for _ in range(100)))
    assert all(answer == {digest("kept"): 0.0} for answer in answers)
