"""The index of vectors in process, where it compares candidates only."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from dispatch_core import DimensionMismatch, MemoryStore
from dispatch_core.stores import _block, _codes
from dispatch_core.stores._index import VectorIndex

NOW = 1_000.0
MANY = _block.CODED_FROM + 500


def units(count: int, dims: int = 128, *, seed: int = 1, offset: float = 0.0) -> np.ndarray:
    """Unit vectors in some clusters, as questions come."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dims))
    rows = centres[rng.integers(0, 40, count)] + rng.normal(size=(count, dims)) + offset
    return _normal(rows)


def near(rows: np.ndarray, *, seed: int = 2) -> np.ndarray:
    """Each at a cosine of about 0.95 to the row."""
    noise = _normal(np.random.default_rng(seed).normal(size=rows.shape))
    return _normal(rows + 0.33 * noise)


def _normal(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def filled(rows: np.ndarray, expires: float | None = None) -> VectorIndex:
    index = VectorIndex()
    for number, row in enumerate(rows):
        index.put(f"{number}", "scope", row, expires)
    return index


def found(index: VectorIndex, vector: np.ndarray, limit: int = 8, now: float = NOW) -> list[str]:
    return [id for id, _ in index.search(vector, scope="scope", limit=limit, now=now)]


def exact(rows: np.ndarray, vector: np.ndarray, limit: int = 8) -> list[str]:
    return [f"{row}" for row in np.argsort(-(rows @ vector), kind="stable")[:limit]]


def share_found(index: VectorIndex, rows: np.ndarray, queries: np.ndarray, limit: int = 8) -> float:
    shares = [len({*found(index, query, limit)} & {*exact(rows, query, limit)}) / limit for query in queries]
    return float(np.mean(shares))


# Recall


@pytest.mark.parametrize("dims", [64, 65, 100, 128, 200, 384, 1536])
def test_every_near_duplicate_is_found_among_many(dims):
    rows = units(MANY, dims)
    index = filled(rows)
    for number in range(0, MANY, 50):
        assert found(index, near(rows[[number]])[0], 1) == [f"{number}"]


def test_all_that_is_near_a_question_is_found():
    """What a consensus of answers rests on."""
    families = units(MANY // 8, 384)
    rows = np.concatenate([near(families, seed=seed) for seed in range(8)])
    index = filled(rows)
    for number in range(0, len(families), 5):
        family = {f"{number + len(families) * copy}" for copy in range(8)}
        assert {*found(index, near(families[[number]], seed=9)[0])} == family


def test_vectors_that_all_point_one_way_are_told_apart():
    """As those of some encoders do: every bit would be the same but for the mean."""
    rows = units(MANY, 384, offset=30.0)
    assert (rows > 0).all()
    centred = rows - rows.mean(axis=0)
    queries = _normal(rows[:100] + 0.2 * near(centred[:100]) * np.linalg.norm(centred, axis=1)[:100, None])
    assert share_found(filled(rows), rows, queries, 1) == 1.0


def test_below_a_bound_all_are_compared():
    rows = units(_block.CODED_FROM - 1)
    index = filled(rows)
    for query in near(rows[:20]):
        assert found(index, query, 50) == exact(rows, query, 50)


@pytest.mark.parametrize("dims", [1, 2, 3, 16, 63])
def test_vectors_of_few_dimensions_are_all_compared(dims):
    rows = units(MANY, dims)
    index = filled(rows)
    for query in near(rows[:5]):
        scores = [score for _, score in index.search(query, scope="scope", limit=8, now=NOW)]
        assert scores == pytest.approx(np.sort(rows @ query)[:-9:-1].tolist(), abs=1e-6)


def test_a_large_limit_is_served_in_full():
    rows = units(MANY)
    index = filled(rows)
    for limit in (100, 600, MANY, MANY + 1):
        answer = index.search(rows[7], scope="scope", limit=limit, now=NOW)
        assert len(answer) == min(limit, MANY)
        assert answer == sorted(answer, key=lambda pair: -pair[1])
    assert sorted(found(index, rows[7], MANY)) == sorted(f"{number}" for number in range(MANY))


def test_as_many_duplicates_as_there_may_be_are_one_answer():
    rows = np.repeat(units(1), MANY, axis=0)
    rows[100] = units(2)[1]
    index = filled(rows)
    assert found(index, rows[100], 1) == ["100"]
    scores = [score for _, score in index.search(rows[0], scope="scope", limit=8, now=NOW)]
    assert scores == pytest.approx([1.0] * 8)


def test_a_vector_of_zeros_is_like_nothing():
    rows = units(MANY)
    rows[5] = 0.0
    index = filled(rows)
    assert found(index, near(rows[[9]])[0], 1) == ["9"]
    assert index.search(np.zeros(128, np.float32), scope="scope", limit=1, now=NOW)[0][1] == 0.0


def test_a_numpy_without_a_count_of_bits_finds_the_same(monkeypatch):
    rows = units(MANY, 200)
    index = filled(rows)
    queries = near(rows[:20])
    expected = [index.search(query, scope="scope", limit=8, now=NOW) for query in queries]
    words = np.random.default_rng(1).integers(0, 2**64, (50, 7), dtype=np.uint64)
    assert _codes.popcount_before_numpy_2(words).tolist() == [
        [int(word).bit_count() for word in row] for row in words
    ]
    monkeypatch.setattr(_codes, "popcount", _codes.popcount_before_numpy_2)
    assert [index.search(query, scope="scope", limit=8, now=NOW) for query in queries] == expected


# Expiry


def test_many_that_expired_never_hide_a_fresh_one_further_away():
    rows = units(MANY)
    index = filled(rows)
    for number in range(MANY):
        if number != 77:
            index.touch(f"{number}", NOW - 1)
    assert found(index, rows[3], 3) == ["77"]


def test_those_that_expired_in_front_of_the_query_make_room():
    rows = units(MANY)
    index = filled(rows)
    order = np.argsort(-(rows @ rows[3]))
    for row in order[:2_000]:
        index.touch(f"{row}", NOW - 1)
    assert found(index, rows[3], 1) == [f"{order[2_000]}"]


def test_a_life_that_is_extended_is_found_again():
    rows = units(MANY)
    index = filled(rows, expires=NOW)
    assert found(index, rows[3]) == []
    index.touch("3", None)
    assert found(index, rows[3]) == ["3"]


def test_what_expired_long_ago_is_let_go_a_part_with_each_search():
    rows = units(MANY)
    index = filled(rows, expires=NOW)
    index.put("fresh", "scope", rows[0], None)
    assert found(index, rows[0], now=NOW + 59) == ["fresh"]
    assert len(index) == MANY + 1
    sizes = []
    for _ in range(40):
        assert found(index, rows[0], now=NOW + 120) == ["fresh"]
        sizes.append(len(index))
    assert sizes[0] > 0.9 * MANY, "one search is not held up by all of them"
    assert sizes[-1] == 1


# Coming and going


def test_a_scope_that_shrinks_and_grows_again_stays_right():
    rows = units(2 * MANY)
    index = filled(rows)
    held = index.nbytes
    for number in range(100, 2 * MANY):
        index.remove(f"{number}")
    assert index.nbytes < held / 4
    assert found(index, rows[42]) == exact(rows[:100], rows[42])
    for number in range(100, 2 * MANY):
        index.put(f"{number}", "scope", rows[number], None)
    assert share_found(index, rows, near(rows[::400]), 1) == 1.0


def test_removed_and_replaced_vectors_are_not_found_among_many():
    rows = units(MANY)
    index = filled(rows)
    for number in range(0, MANY, 3):
        index.remove(f"{number}")
    for number in range(1, MANY, 3):
        index.put(f"{number}", "scope", -rows[number], None)
    for number in range(0, 300, 3):
        assert found(index, rows[number], 1) != [f"{number}"]
        assert found(index, -rows[number + 1], 1) == [f"{number + 1}"]
        assert found(index, rows[number + 2], 1) == [f"{number + 2}"]


def test_a_wrong_length_is_refused_among_many():
    index = filled(units(MANY))
    with pytest.raises(DimensionMismatch):
        index.search(units(1, 64)[0], scope="scope", limit=1, now=NOW)
    with pytest.raises(DimensionMismatch):
        index.put("new", "scope", units(1, 64)[0], None)


def test_the_bytes_held_are_known_and_few():
    for count in (500, 5_000, 20_000):
        index = filled(units(count, 384))
        assert count * 4 * 384 < index.nbytes < count * 2_200
    index.clear()
    assert index.nbytes == 0


# Meanwhile


class Paused:
    """Stops a search where it compares codes, without the lock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.resume = threading.Event(), threading.Event()
        nearest = _codes.Scan.nearest

        def stopped(scan: _codes.Scan):
            rows = nearest(scan)
            self.reached.set()
            assert self.resume.wait(20)
            return rows

        monkeypatch.setattr(_codes.Scan, "nearest", stopped)

    def search(self, index: VectorIndex, vector: np.ndarray, meanwhile) -> list[str]:
        answers: list[list[str]] = []
        thread = threading.Thread(target=lambda: answers.append(found(index, vector, 2)))
        thread.start()
        assert self.reached.wait(20)
        meanwhile()
        self.resume.set()
        thread.join()
        return answers[0]


def test_one_that_takes_the_row_of_a_removed_one_during_a_search_is_found(monkeypatch):
    rows = units(MANY)
    last = f"{MANY - 1}"
    index = filled(rows)
    answer = Paused(monkeypatch).search(index, rows[-1], lambda: index.remove("0"))
    assert answer[0] == last


def test_what_is_removed_or_expires_during_a_search_is_not_found(monkeypatch):
    rows = units(MANY)
    index = filled(rows)
    first, second, third = exact(rows, rows[9], 3)

    def meanwhile() -> None:
        index.remove(first)
        index.touch(second, NOW)

    assert Paused(monkeypatch).search(index, rows[9], meanwhile)[0] == third


def test_when_the_last_ones_are_removed_during_a_search_they_are_not_found(monkeypatch):
    rows = units(MANY)
    index = filled(rows)
    last = MANY - 1
    answer = Paused(monkeypatch).search(index, rows[last], lambda: index.remove(f"{last}"))
    assert len(answer) == 2
    assert f"{last}" not in answer


def test_after_the_first_ends_were_swept_later_ones_still_count():
    rows = units(MANY)
    index = filled(rows)
    index.put("0", "scope", rows[0], NOW + 1)
    index.put("1", "scope", rows[1], NOW + 500)
    found(index, rows[0], now=NOW + 100)
    assert found(index, rows[1], now=NOW + 499)[0] == "1"
    assert "1" not in found(index, rows[1], now=NOW + 500)


def test_what_is_put_during_a_search_may_be_found(monkeypatch):
    rows = units(MANY)
    index = filled(rows)
    answer = Paused(monkeypatch).search(index, rows[9], lambda: index.put("new", "scope", rows[9], None))
    assert {*answer} == {"9", "new"}


def test_a_scope_that_is_cleared_during_a_search_has_nothing(monkeypatch):
    rows = units(MANY)
    index = filled(rows)

    def meanwhile() -> None:
        index.clear()
        index.put("new", "scope", rows[0], None)

    assert Paused(monkeypatch).search(index, rows[9], meanwhile) == []


def test_a_search_that_fails_leaves_the_index_as_it_was(monkeypatch):
    rows = units(MANY)
    index = filled(rows)
    with monkeypatch.context() as patched:
        patched.setattr(_codes.Scan, "_counts", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            found(index, rows[0])
    assert index._blocks["scope"]._scans == []
    assert found(index, rows[0], 1) == ["0"]


def test_searches_beside_changes_find_what_stays():
    rows = units(MANY + 2_000)
    index = filled(rows)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            index.remove(f"{MANY + number % 2_000}")
            index.put(f"{MANY + number % 2_000}", "scope", rows[MANY + number % 2_000], None)
            number += 1

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for number in range(0, MANY, 40):
            assert found(index, rows[number], 1) == [f"{number}"]
    finally:
        stop.set()
        changer.join()
    assert len(index) == MANY + 2_000


# On an event loop


@pytest.mark.parametrize(("long", "elsewhere"), [(100, True), (101, False)])
async def test_a_long_search_leaves_the_event_loop(monkeypatch, long, elsewhere):
    monkeypatch.setattr("dispatch_core.stores._index._LONG", long)
    rows = units(100)
    index = filled(rows)
    threads = []
    search = index.search

    def noted(*args, **kwargs):
        threads.append(threading.current_thread())
        return search(*args, **kwargs)

    monkeypatch.setattr(index, "search", noted)
    store = MemoryStore()
    store._index = index
    await store.asearch(rows[0], scope="scope", limit=1, now=NOW)
    assert (threads[0] is not threading.main_thread()) is elsewhere


async def test_an_entry_that_leaves_between_search_and_answer_is_not_served(monkeypatch):
    store = MemoryStore()
    monkeypatch.setattr(store._index, "search", lambda *_, **__: [("gone", 1.0)])
    assert store.search(units(1)[0], scope="scope", limit=1, now=NOW) == []
    assert await asyncio.wait_for(store.asearch(units(1)[0], scope="scope", limit=1, now=NOW), 20) == []
