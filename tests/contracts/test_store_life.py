"""What every vector store promises about an entry's life after it was put: tags, staleness, touching, forgetting."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import made
from places import EAST, HOSTILE, NORTH, NOW, found

from dispatch_core.keys import digest


def _ids(*names: str) -> list[str]:
    return sorted(digest(name) for name in names)


async def _left(store, *names: str) -> list[str]:
    """Those of the names that are still there, by id and, if they have a vector, by search."""
    there = [name for name in names if await store.get(digest(name), now=NOW) is not None]
    assert set(await found(store, limit=1_000)) <= set(_ids(*there))
    return there


# What an entry carries


async def test_an_entry_comes_back_with_all_it_carries(store):
    entry = replace(made("a", tags=["two", "one"], expires=NOW + 9.5), stale=NOW + 0.1, tombstone=True, payload=b"")
    for vector in (EAST, None):
        await store.put(entry, vector)
        assert await store.get(entry.id, now=NOW) == entry
    await store.put(entry, EAST)
    [match] = await store.search(EAST, scope=entry.scope, limit=1, now=NOW)
    assert match.entry == entry


async def test_hostile_tags_round_trip(store):
    entry = made("a", tags=HOSTILE)
    await store.put(entry, EAST)
    assert (await store.get(entry.id, now=NOW)).tags == tuple(sorted(HOSTILE))


async def test_put_again_replaces_all_that_an_entry_carries(store):
    await store.put(replace(made("a", tags=["old", "both"]), stale=NOW, tombstone=True), EAST)
    fresh = made("a", tags=["both", "new"])
    await store.put(fresh, EAST)
    assert await store.get(digest("a"), now=NOW) == fresh
    assert await store.clear(tags=["old"]) == 0
    assert await store.clear(tags=["new"]) == 1


async def test_a_stale_entry_is_found_until_it_expires(store):
    await store.put(replace(made("a", expires=NOW + 6), stale=NOW + 1), EAST)
    assert await found(store, now=NOW + 5) == [digest("a")]
    assert (await store.get(digest("a"), now=NOW + 5)).stale == NOW + 1
    assert await store.get(digest("a"), now=NOW + 6) is None


async def test_a_tombstone_takes_its_place_in_a_search(store):
    await store.put(replace(made("no"), tombstone=True), EAST)
    await store.put(made("yes"), NORTH)
    assert [match.entry.tombstone for match in await store.search(EAST, scope=digest("scope"), limit=2, now=NOW)] == [
        True,
        False,
    ]


# Touching


@pytest.mark.parametrize(
    ("before", "after", "last"),
    [(6.0, 20.0, 20.0), (20.0, 6.0, 6.0), (None, 6.5, 6.5), (6.0, None, None), (6.0, 6.0, 6.0)],
)
async def test_touch_moves_the_end_of_a_life_and_nothing_else(store, before, after, last):
    def at(seconds: float | None) -> float | None:
        return None if seconds is None else NOW + seconds

    entry = replace(made("a", tags=["tag"], expires=at(before)), stale=NOW + 3)
    await store.put(entry, EAST)
    await store.touch(entry.id, expires=at(after), now=NOW + 1)
    assert await store.get(entry.id, now=NOW + 1) == replace(entry, expires=at(after))
    for now, there in ((NOW + 1, True), (NOW + (last or 1e5) - 0.25, True), (NOW + (last or 1e6), last is None)):
        assert (await found(store, now=now) == [entry.id]) is there
        assert (await store.get(entry.id, now=now) is not None) is there


async def test_touch_reaches_an_entry_without_a_vector(store):
    await store.put(made("a", expires=NOW + 6), None)
    await store.touch(digest("a"), expires=NOW + 20, now=NOW)
    assert (await store.get(digest("a"), now=NOW + 10)).expires == NOW + 20
    assert await found(store) == []


async def test_touch_never_brings_back_what_is_gone(store):
    await store.put(made("expired", expires=NOW + 6), EAST)
    await store.put(made("deleted", expires=NOW + 6), EAST)
    await store.delete(digest("deleted"))
    for name in ("expired", "deleted", "never was"):
        await store.touch(digest(name), expires=NOW + 100, now=NOW + 6)
        assert await store.get(digest(name), now=NOW + 6) is None
    assert await found(store, now=NOW + 6) == []
    await store.put(made("after"), EAST)
    assert await found(store, now=NOW + 6) == [digest("after")]


async def test_touch_saves_an_entry_that_a_faster_clock_has_already_seen_expire(store):
    await store.put(made("a", expires=NOW + 6), EAST)
    await store.put(made("b"), NORTH)
    assert await found(store, now=NOW + 7) == [digest("b")]
    await store.touch(digest("a"), expires=NOW + 20, now=NOW + 5)
    assert await found(store, now=NOW + 7) == [digest("a"), digest("b")]


async def test_two_stores_see_each_others_touches(both):
    one, other = both
    await one.put(made("a", expires=NOW + 6), EAST)
    await one.put(made("b", expires=NOW + 6), NORTH)
    assert len(await found(other)) == 2
    await one.touch(digest("a"), expires=NOW + 20, now=NOW)
    await other.touch(digest("b"), expires=NOW + 3, now=NOW)
    for store in both:
        assert await found(store, now=NOW + 2) == [digest("a"), digest("b")]
        assert await found(store, now=NOW + 10) == [digest("a")]
    await one.touch(digest("a"), expires=None, now=NOW)
    await one.put(made("a", expires=NOW + 30), EAST)
    await one.touch(digest("a"), expires=NOW + 40, now=NOW)
    assert await found(other, now=NOW + 35) == [digest("a")]
    assert await found(other, now=NOW + 40) == []


# Forgetting by tags


async def test_clear_says_how_many_it_forgot(store):
    for number in range(7):
        await store.put(made(f"{number}", namespace="ours" if number < 4 else "theirs"), EAST if number % 2 else None)
    assert await store.clear(digest("nobody's")) == 0
    assert await store.clear(digest("ours")) == 4
    assert await store.clear() == 3
    assert await store.clear() == 0


async def test_clear_by_tags_forgets_what_carries_any_of_them(store):
    tags = {"a": ["red"], "b": ["blue", "red"], "c": ["blue"], "d": ["green"], "e": []}
    for name, carried in tags.items():
        await store.put(made(name, tags=carried), EAST if name != "b" else None)
    assert await store.clear(tags=["red", "green", "red", "none"]) == 3
    assert await _left(store, *tags) == ["c", "e"]
    assert await store.clear(tags={"red"}) == 0
    assert await store.clear(tags=("blue",)) == 1
    assert await _left(store, *tags) == ["e"]


async def test_clear_by_tags_stays_within_the_namespace(store):
    for name, namespace in (("a", "ours"), ("b", "theirs"), ("c", "ours")):
        await store.put(made(name, namespace=namespace, tags=["shared", name]), EAST)
    assert await store.clear(digest("ours"), tags=["shared"]) == 2
    assert await store.clear(digest("ours"), tags=["b"]) == 0
    assert await _left(store, "a", "b", "c") == ["b"]


async def test_a_tag_is_the_whole_tag(store):
    tags = ["tag", "tag ", " tag", "TAG", "ta", "tag\x00", '"tag"', "t%g", "t_g", "*", '","', "\\", ""]
    for number, tag in enumerate(tags):
        await store.put(made(f"{number}", tags=[tag]), EAST)
    for number, tag in enumerate(tags):
        assert await store.clear(tags=[tag]) == 1
        assert await store.get(digest(f"{number}"), now=NOW) is None


@pytest.mark.parametrize("tag", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_tags_are_found_and_nothing_else_is(store, tag):
    await store.put(made("a", tags=[tag, "x"]), EAST)
    await store.put(made("b", tags=["x"]), NORTH)
    assert await store.clear(tags=[tag]) == 1
    assert await found(store) == [digest("b")]


async def test_an_entry_may_carry_many_tags(store):
    await store.put(made("a", tags=[f"document {number}" for number in range(2_000)]), EAST)
    assert await store.clear(tags=[f"document {number}" for number in range(1_990, 4_000)]) == 1
    assert await found(store) == []


async def test_what_was_forgotten_may_come_back_without_its_tags(store):
    await store.put(made("a", tags=["tag"]), EAST)
    await store.delete(digest("a"))
    await store.put(made("a"), EAST)
    assert await store.clear(tags=["tag"]) == 0
    assert await found(store) == [digest("a")]


async def test_two_stores_see_each_others_clears_by_tags(both):
    one, other = both
    for number in range(30):
        await one.put(made(f"{number}", tags=[f"{number % 3}"]), EAST)
    assert len(await found(other, limit=100)) == 30
    assert await other.clear(tags=["0", "1"]) == 20
    assert sorted(await found(one, limit=100)) == _ids(*(f"{number}" for number in range(2, 30, 3)))
