"""The index of vectors against a dictionary that compares everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_core.stores import _block
from dispatch_core.stores._index import VectorIndex

IDS = st.sampled_from([f"{number}" for number in range(40)])
SCOPES = st.sampled_from("st")
ENDS = st.sampled_from([None, None, 5.0, 50.0, 500.0])
SEEDS = st.integers(0, 30)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, SCOPES, SEEDS, ENDS),
        st.tuples(st.just("put"), IDS, SCOPES, SEEDS, ENDS),
        st.tuples(st.just("remove"), IDS),
        st.tuples(st.just("touch"), IDS, ENDS),
        st.tuples(st.just("search"), SCOPES, SEEDS, st.integers(1, 12)),
        st.tuples(st.just("clear")),
    ),
    max_size=80,
)


class Watch:
    """An index and what it should hold: scope, vector and end of each id."""

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self.index = VectorIndex()
        self.known: dict[str, tuple[str, np.ndarray, float]] = {}

    def vector(self, seed: int) -> np.ndarray:
        row = np.random.default_rng(seed).normal(size=self.dims).astype(np.float32)
        # Some are zero and some alike.
        return np.zeros_like(row) if seed == 0 else row / np.linalg.norm(row) * (-1 if seed % 7 == 0 else 1)

    def put(self, now: float, id: str, scope: str, seed: int, expires: float | None) -> None:
        self.index.put(id, scope, self.vector(seed), expires)
        self.known[id] = scope, self.vector(seed), float("inf") if expires is None else expires

    def remove(self, now: float, id: str) -> None:
        self.index.remove(id)
        self.known.pop(id, None)

    def touch(self, now: float, id: str, expires: float | None) -> None:
        self.index.touch(id, expires)
        # What is long over may have been let go.
        if id in self.known:
            self.known[id] = *self.known[id][:2], float("inf") if expires is None else expires

    def clear(self, now: float) -> None:
        self.index.clear()
        self.known.clear()

    def search(self, now: float, scope: str, seed: int, limit: int) -> None:
        query = self.vector(seed)
        found = self.index.search(query, scope=scope, limit=limit, now=now)
        fresh = {
            id: float(vector @ query) for id, (home, vector, end) in self.known.items() if home == scope and end > now
        }
        best = sorted(fresh.values(), reverse=True)[:limit]
        assert [score for _, score in found] == pytest.approx(best, abs=1e-5)
        assert len({id for id, _ in found}) == len(found)
        for id, score in found:
            assert score == pytest.approx(fresh[id], abs=1e-5)


def follow(moves: list[tuple], dims: int) -> None:
    watch = Watch(dims)
    for now, (move, *rest) in enumerate(moves):
        getattr(watch, move)(float(now), *rest)
        assert len(watch.index) == len(watch.known)
    for scope in "st":
        watch.search(100.0, scope, 1, 5)


@given(MOVES, st.integers(1, 40))
def test_every_order_of_calls_answers_as_comparing_everything_does(moves, dims):
    follow(moves, dims)


@settings(deadline=None)
@given(MOVES, st.sampled_from([64, 100, 128, 129, 384]))
def test_the_same_with_slabs_of_few_rows_and_codes_from_the_first(moves, dims):
    """All vectors are candidates here: what is checked is the moving of rows and codes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_block, "_SLAB", 16)
        patched.setattr(_block, "CODED_FROM", 3)
        patched.setattr(_block, "_CODED_UNTIL", 2)
        follow(moves, dims)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 1536), st.integers(1, 60), st.integers(1, 20), SEEDS)
def test_any_number_of_dimensions_will_do(dims, count, limit, seed):
    follow(
        [("put", f"{number}", "s", number + seed, None) for number in range(count)] + [("search", "s", seed, limit)],
        dims,
    )
