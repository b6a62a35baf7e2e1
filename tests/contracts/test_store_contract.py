"""What every vector store promises, in both forms of every call."""

from __future__ import annotations

import asyncio
import gc
import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from fakes import Either, in_another_process, made, unit
from places import EAST, HERE, HOSTILE, NORTH, NOW, WEST, found

from dispatch_core import DimensionMismatch, SQLiteStore, StoreError, Usage, store_from_url
from dispatch_core.keys import digest

# Scores


@pytest.mark.parametrize(("vector", "score"), [(EAST, 1.0), (NORTH, 0.0), (WEST, -1.0), (unit(1, 1, 0), 0.5**0.5)])
async def test_the_score_is_the_cosine(store, vector, score):
    await store.put(made("a"), vector)
    [match] = await store.search(EAST, scope=HERE, limit=1, now=NOW)
    assert match.score == pytest.approx(score, abs=1e-6)
    assert -1.0 <= match.score <= 1.0
    assert not match.exact


async def test_the_best_comes_first(store):
    vectors = {"worst": WEST, "best": EAST, "third": NORTH, "second": unit(2, 1, 0)}
    for name, vector in vectors.items():
        await store.put(made(name), vector)
    assert await found(store) == [digest(name) for name in ("best", "second", "third", "worst")]


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 100])
async def test_no_more_than_the_limit_isfound(store, limit):
    for number in range(6):
        await store.put(made(f"{number}"), unit(1, number, 0))
    assert await found(store, limit=limit) == [digest(f"{number}") for number in range(min(limit, 6))]


async def test_an_empty_store_finds_nothing(store):
    assert await store.get(digest("a"), now=NOW) is None
    assert await found(store) == []


async def test_many_vectors_are_searched_exactly(store):
    rows = np.random.default_rng(7).normal(size=(300, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for number, row in enumerate(rows):
        await store.put(made(f"{number}"), row)
    expected = [digest(f"{number}") for number in np.argsort(-(rows @ rows[42]))[:8]]
    assert await found(store, rows[42], limit=8) == expected


# Identity


async def test_a_nearer_entry_of_another_scope_never_hides_ours(store):
    for number in range(20):
        await store.put(made(f"theirs {number}", scope="theirs"), EAST)
    await store.put(made("ours"), unit(1, 1, 0))
    assert await found(store, limit=1) == [digest("ours")]
    assert await found(store, scope=digest("a third")) == []


async def test_an_entry_comes_back_as_it_was_put(store):
    entry = made("a", text="a question", payload=b"an answer", expires=NOW + 0.125)
    await store.put(entry, EAST)
    assert await store.get(entry.id, now=NOW) == entry
    [match] = await store.search(EAST, scope=HERE, limit=1, now=NOW)
    assert match.entry == entry


async def test_put_again_replaces_the_payload(store):
    await store.put(made("a", payload=b"old"), EAST)
    await store.put(replace(made("a", payload=b"new"), usage=Usage(8, 9)), EAST)
    [match] = await store.search(EAST, scope=HERE, limit=10, now=NOW)
    assert (match.entry.payload, match.entry.usage) == (b"new", Usage(8, 9))
    assert (await store.get(digest("a"), now=NOW)).payload == b"new"


async def test_put_again_replaces_the_vector(store):
    await store.put(made("a"), EAST)
    await store.put(made("a"), NORTH)
    [match] = await store.search(NORTH, scope=HERE, limit=10, now=NOW)
    assert match.score == pytest.approx(1.0)


async def test_put_again_moves_to_the_new_scope(store):
    await store.put(made("a"), EAST)
    await store.put(made("b"), EAST)
    await store.put(made("a", scope="elsewhere"), EAST)
    assert await found(store) == [digest("b")]
    assert await found(store, scope=digest("elsewhere")) == [digest("a")]


async def test_put_again_replaces_the_expiry(store):
    await store.put(made("a", expires=NOW + 5), EAST)
    await store.put(made("a"), EAST)
    assert await found(store, now=NOW + 1e6) == [digest("a")]
    assert await store.get(digest("a"), now=NOW + 1e6) is not None


async def test_an_entry_without_a_vector_is_found_by_its_id_alone(store):
    await store.put(made("a"), None)
    assert await found(store) == []
    assert (await store.get(digest("a"), now=NOW)).id == digest("a")


async def test_put_without_a_vector_replaces_an_earlier_vector(store):
    await store.put(made("a", payload=b"old"), EAST)
    await store.put(made("b"), NORTH)
    await store.put(made("a", payload=b"new"), None)
    assert await found(store) == [digest("b")]
    assert (await store.get(digest("a"), now=NOW)).payload == b"new"


# Expiry


async def test_an_entry_is_found_until_it_expires(store):
    await store.put(made("a", expires=NOW + 6), EAST)
    for now, there in ((NOW, True), (NOW + 5.75, True), (NOW + 6, False), (NOW + 14, False)):
        assert (await found(store, now=now) == [digest("a")]) is there
        assert (await store.get(digest("a"), now=now) is not None) is there


async def test_reading_does_not_extend_a_life(store):
    await store.put(made("a", expires=NOW + 6), EAST)
    for second in range(6):
        assert await store.get(digest("a"), now=NOW + second) is not None
        assert await found(store, now=NOW + second) == [digest("a")]
    assert await store.get(digest("a"), now=NOW + 6) is None
    assert await found(store, now=NOW + 6) == []


async def test_an_expired_entry_never_hides_a_fresh_one(store):
    for number in range(10):
        await store.put(made(f"old {number}", expires=NOW + 1), EAST)
    await store.put(made("fresh"), NORTH)
    assert await found(store, limit=1, now=NOW + 2) == [digest("fresh")]


async def test_an_entry_that_was_expired_when_put_is_neverfound(store):
    await store.put(made("a", expires=1.0), EAST)
    assert await store.get(digest("a"), now=NOW) is None
    assert await found(store) == []


# Dimensions


async def test_a_vector_of_another_length_is_refused_and_the_store_works_on(store):
    await store.put(made("a"), EAST)
    with pytest.raises(DimensionMismatch) as refused:
        await store.put(made("b"), unit(1, 0))
    assert (refused.value.expected, refused.value.actual) == (3, 2)
    with pytest.raises(DimensionMismatch):
        await store.search(unit(1, 0, 0, 0), scope=HERE, limit=1, now=NOW)
    assert await store.get(digest("b"), now=NOW) is None
    await store.put(made("c"), NORTH)
    assert await found(store) == [digest("a"), digest("c")]


async def test_a_refused_vector_leaves_the_earlier_entry(store):
    await store.put(made("a", payload=b"old"), EAST)
    with pytest.raises(DimensionMismatch):
        await store.put(made("a", payload=b"new"), unit(1, 0))
    assert (await store.get(digest("a"), now=NOW)).payload == b"old"
    assert await found(store) == [digest("a")]


async def test_an_emptied_store_takes_vectors_of_another_length(store):
    await store.put(made("a"), EAST)
    await store.clear()
    await store.put(made("b"), unit(1, 0))
    assert await found(store, unit(1, 0)) == [digest("b")]


# Forgetting


async def test_delete_forgets_one_entry_and_may_be_repeated(store):
    await store.put(made("a"), EAST)
    await store.put(made("b"), NORTH)
    for _ in range(2):
        await store.delete(digest("a"))
    await store.delete(digest("never was"))
    assert await store.get(digest("a"), now=NOW) is None
    assert await found(store) == [digest("b")]


async def test_a_deleted_entry_may_come_back(store):
    await store.put(made("a"), EAST)
    await store.delete(digest("a"))
    await store.put(made("a", payload=b"again"), NORTH)
    [match] = await store.search(NORTH, scope=HERE, limit=1, now=NOW)
    assert (match.entry.payload, match.score) == (b"again", pytest.approx(1.0))


async def test_clear_touches_one_namespace(store):
    for name, namespace in (("a", "ours"), ("b", "theirs"), ("c", "ours"), ("d", "*")):
        await store.put(made(name, namespace=namespace), EAST)
    await store.put(made("e"), None)
    await store.clear(digest("ours"))
    assert sorted(await found(store)) == sorted([digest("b"), digest("d")])
    assert [await store.get(digest(name), now=NOW) is None for name in "abcde"] == [True, False, True, False, True]
    await store.clear("*")
    assert len(await found(store)) == 2


async def test_clear_forgets_everything(store):
    for number in range(30):
        await store.put(made(f"{number}", namespace=f"{number % 3}"), EAST if number % 2 else None)
    await store.clear()
    assert await found(store) == []
    assert await store.get(digest("0"), now=NOW) is None
    await store.put(made("after"), EAST)
    assert await found(store) == [digest("after")]


# Content


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_round_trips(store, text):
    entry = made("a", text=text)
    await store.put(entry, EAST)
    await store.put(made("b", text="innocent"), NORTH)
    assert await store.get(entry.id, now=NOW) == entry
    assert (await store.search(EAST, scope=HERE, limit=1, now=NOW))[0].entry.text == text
    await store.delete(entry.id)
    assert await found(store) == [digest("b")]


@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256)) * 3, b"\r\n$5\r\nhello", b"x" * 1_000_000])
async def test_any_payload_round_trips(store, payload):
    await store.put(made("a", payload=payload), EAST)
    assert (await store.get(digest("a"), now=NOW)).payload == payload
    assert (await store.search(EAST, scope=HERE, limit=1, now=NOW))[0].entry.payload == payload


async def test_the_caller_may_reuse_its_vector(store):
    vector = EAST.copy()
    await store.put(made("a"), vector)
    vector[:] = NORTH
    [match] = await store.search(EAST, scope=HERE, limit=1, now=NOW)
    assert match.score == pytest.approx(1.0)


# Concurrency


def _apart(count: int) -> list[np.ndarray]:
    rows = np.random.default_rng(3).normal(size=(count, 32))
    return [unit(*row) for row in rows]


async def test_many_puts_and_searches_of_threads_lose_nothing(place):
    store = place.open()
    vectors = _apart(place.many)

    def work(number: int) -> str:
        store.put(made(f"{number}"), vectors[number])
        [match] = store.search(vectors[number], scope=HERE, limit=1, now=NOW)
        assert store.get(match.entry.id, now=NOW) == match.entry
        return match.entry.id

    def all_work() -> list[str]:
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(work, range(place.many)))

    assert await asyncio.to_thread(all_work) == [digest(f"{number}") for number in range(place.many)]
    assert len(store.search(vectors[0], scope=HERE, limit=2_000, now=NOW)) == place.many
    store.close()


async def test_many_puts_and_searches_of_tasks_lose_nothing(place):
    store = place.open()
    vectors = _apart(place.many)

    async def work(number: int) -> str:
        await store.aput(made(f"{number}"), vectors[number])
        [match] = await store.asearch(vectors[number], scope=HERE, limit=1, now=NOW)
        assert await store.aget(match.entry.id, now=NOW) == match.entry
        return match.entry.id

    assert await asyncio.gather(*map(work, range(place.many))) == [
        digest(f"{number}") for number in range(place.many)
    ]
    assert len(await store.asearch(vectors[0], scope=HERE, limit=2_000, now=NOW)) == place.many
    await store.aclose()


async def test_threads_that_change_the_same_entries_agree_with_the_store_in_the_end(place):
    store = place.open()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            name = chance.choice("abcdef")
            match chance.randrange(4):
                case 0:
                    store.delete(digest(name))
                case 1:
                    store.search(EAST, scope=HERE, limit=3, now=NOW)
                case _:
                    angle = chance.uniform(0, math.tau)
                    vector = unit(math.cos(angle), math.sin(angle), 0)
                    store.put(made(name, payload=vector.tobytes()), vector)

    def all_work() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

    await asyncio.to_thread(all_work)
    matches = {match.entry.id: match for match in store.search(EAST, scope=HERE, limit=99, now=NOW)}
    for name in "abcdef":
        entry = store.get(digest(name), now=NOW)
        assert (entry is None) is (digest(name) not in matches)
        if entry is not None:
            written = np.frombuffer(entry.payload, dtype=np.float32)
            assert matches[entry.id].score == pytest.approx(float(written @ EAST), abs=1e-6)
    store.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_store_serves_event_loops_one_after_another_and_at_once(place):
    store = place.open()

    async def work(name: str) -> None:
        await store.aput(made(name), EAST)
        assert digest(name) in [m.entry.id for m in await store.asearch(EAST, scope=HERE, limit=99, now=NOW)]

    for number in range(2):
        asyncio.run(work(f"in turn {number}"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: asyncio.run(work(f"at once {number}")), range(8)))
    assert len(store.search(EAST, scope=HERE, limit=99, now=NOW)) == 10
    asyncio.run(store.aclose())
    # Sockets of a loop that ended without closing them are the collector's; it shall warn here, not in another test.
    gc.collect()


async def test_closing_twice_is_harmless(place, form):
    either = Either(place.open(), form)
    await either.put(made("a"), EAST)
    await either.close()
    await either.close()


# Sharing


async def test_two_stores_see_each_others_puts(both):
    one, other = both
    assert await found(other) == []
    await one.put(made("a"), EAST)
    assert await found(other) == [digest("a")]
    await other.put(made("b"), NORTH)
    assert await found(one) == [digest("a"), digest("b")]
    await one.put(made("b", payload=b"new"), unit(2, -1, 0))
    [_, match] = await other.search(EAST, scope=HERE, limit=5, now=NOW)
    assert (match.entry.payload, match.score) == (b"new", pytest.approx(2 / 5**0.5))


async def test_two_stores_see_each_others_deletes_and_clears(both):
    one, other = both
    for name, namespace in (("a", "ours"), ("b", "theirs"), ("c", "ours")):
        await one.put(made(name, namespace=namespace), EAST)
    assert len(await found(other)) == 3
    await one.delete(digest("a"))
    assert sorted(await found(other)) == sorted([digest("b"), digest("c")])
    await other.clear(digest("ours"))
    assert await found(one) == [digest("b")]
    await one.clear()
    assert await found(other) == []
    assert await other.get(digest("b"), now=NOW) is None


async def test_a_vector_taken_away_by_one_store_is_not_found_by_the_other(both):
    one, other = both
    await one.put(made("a"), EAST)
    assert await found(other) == [digest("a")]
    await one.put(made("a"), None)
    assert await found(other) == []


async def test_two_stores_that_write_at_once_lose_nothing(shared):
    stores = [shared.open(), shared.open()]
    vectors = _apart(200)

    def work(number: int) -> None:
        stores[number % 2].put(made(f"{number}"), vectors[number])
        [match] = stores[1 - number % 2].search(vectors[number], scope=HERE, limit=1, now=NOW)
        assert match.entry.id == digest(f"{number}")

    def all_work() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(200)))

    await asyncio.to_thread(all_work)
    for store in stores:
        assert len(store.search(vectors[0], scope=HERE, limit=500, now=NOW)) == 200
        store.close()


async def test_entries_survive_closing_and_opening_again(shared, form):
    first = Either(shared.open(), form)
    await first.put(made("a"), EAST)
    await first.put(made("b"), None)
    await first.close()
    again = Either(shared.open(), form)
    assert await found(again) == [digest("a")]
    assert await again.get(digest("b"), now=NOW) == made("b")
    with pytest.raises(DimensionMismatch):
        await again.put(made("c"), unit(1, 0))
    await again.target.aclose()


_ANOTHER = """
import sys
from fakes import made, unit
from places import opened
store = opened(sys.argv[1])
[match] = store.search(unit(1, 0, 0), scope=made("ours").scope, limit=9, now=float(sys.argv[2]))
store.put(made("theirs", payload=match.entry.payload + b" and theirs"), unit(0, 1, 0))
store.delete(match.entry.id)
store.close()
"""


def test_a_second_process_shares_the_entries(far):
    store = far.open()
    store.put(made("ours", payload=b"ours"), EAST)
    in_another_process(_ANOTHER, far.url, repr(NOW))
    [match] = store.search(EAST, scope=HERE, limit=9, now=NOW)
    assert (match.entry.id, match.entry.payload) == (digest("theirs"), b"ours and theirs")
    store.close()


# One line of configuration


def test_a_sqlite_file_that_cannot_be_opened_is_a_store_error(tmp_path):
    with pytest.raises(StoreError):
        store_from_url(f"sqlite:///{tmp_path}/no/such/folder/cache.db")
    (tmp_path / "not-a.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StoreError):
        SQLiteStore(tmp_path / "not-a.db")
