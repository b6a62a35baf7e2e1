"""What holds under a cap for every order of puts, uses and removals."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.stores.eviction import Cap, LazyHeap

IDS = st.sampled_from("abcdefgh")
ENDS = st.sampled_from([None] * 9 + [10, 20, 30])
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), IDS, st.integers(1, 500), st.integers(0, 60), ENDS),
        st.tuples(st.just("add"), IDS, st.integers(1, 500), st.integers(0, 10), ENDS),
        st.tuples(st.just("hit"), IDS),
        st.tuples(st.just("remove"), IDS),
        st.tuples(st.just("touch"), IDS, ENDS),
    ),
    max_size=60,
)


@dataclass
class Known:
    """An entry as the rule has it, written without a heap."""

    size: int
    rate: float
    hits: int
    clock: float
    expires: int | None

    @property
    def worth(self) -> float:
        return self.clock + self.hits * self.rate


class Watch:
    """Follows a cap and judges every choice it makes."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.cap = Cap(max_entries, max_bytes)
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.known: dict[str, Known] = {}
        self.clock = 0.0

    def admit(self, now: int, id: str, cost: int, size: int, expires: int | None) -> None:
        gone = self.cap.admit(id, cost=cost, size=size, expires=expires, now=now)
        hits = self.known.pop(id).hits if id in self.known else 1
        if size > self.max_bytes:
            assert gone == [id]
            return
        for each in gone:
            assert self.over(1, size), "nothing gives way without need"
            self.give_way(each, now)
        assert not self.over(1, size)
        self.known[id] = Known(size, cost / max(1, size), hits, self.clock, expires)

    def add(self, now: int, id: str, cost: int, size: int, expires: int | None) -> None:
        if not self.over(1, size) and id not in self.known:
            self.cap.add(id, cost=cost, size=size, expires=expires)
            self.known[id] = Known(size, cost / max(1, size), 1, self.clock, expires)

    def hit(self, now: int, id: str) -> None:
        self.cap.hit(id)
        if id in self.known:
            self.known[id].hits += 1
            self.known[id].clock = self.clock

    def remove(self, now: int, id: str) -> None:
        self.cap.remove(id)
        self.known.pop(id, None)

    def touch(self, now: int, id: str, expires: int | None) -> None:
        self.cap.touch(id, expires)
        if id in self.known:
            self.known[id].expires = expires

    def over(self, entries: int, size: int) -> bool:
        held = sum(entry.size for entry in self.known.values())
        return len(self.known) + entries > self.max_entries or held + size > self.max_bytes

    def give_way(self, id: str, now: int) -> None:
        ends = [entry.expires for entry in self.known.values() if entry.expires is not None and entry.expires <= now]
        gone = self.known[id]
        if ends:
            assert gone.expires == min(ends)
        else:
            assert gone.worth == min(entry.worth for entry in self.known.values())
            assert gone.worth >= self.clock
            self.clock = gone.worth
        del self.known[id]


@given(MOVES, st.integers(1, 5), st.integers(20, 150))
def test_every_order_of_calls_keeps_the_cap_and_the_rule(moves, max_entries, max_bytes):
    watch = Watch(max_entries, max_bytes)
    for now, (move, *rest) in enumerate(moves):
        getattr(watch, move)(now, *rest)
        assert len(watch.cap) == len(watch.known) <= max_entries
        assert not watch.over(0, 0)


@given(st.integers(1, 1_000), st.integers(1, 1_000), st.integers(1, 50), st.integers(1, 50), st.integers(1, 10_000))
def test_the_more_often_used_and_dearer_of_equal_size_outlives_the_other(cost, more, uses, more_uses, size):
    cap = Cap(2)
    cap.admit("dear", cost=cost + more, size=size, now=0)
    cap.admit("cheap", cost=cost, size=size, now=0)
    for id, times in (("dear", uses + more_uses), ("cheap", uses)):
        for _ in range(times):
            cap.hit(id)
    assert cap.admit("new", cost=1, size=size, now=0) == ["cheap"]


@given(st.integers(1, 200), st.integers(2, 20), st.integers(1, 100))
def test_an_old_favourite_that_is_asked_no_more_gives_way_in_the_end(uses, max_entries, cost):
    cap = Cap(max_entries)
    cap.admit("favourite", cost=cost, size=10, now=0)
    for _ in range(uses):
        cap.hit("favourite")
    gone: list[str] = []
    for number in range((uses + 2) * max_entries):
        gone += cap.admit(f"{number}", cost=cost, size=10, now=0)
    assert "favourite" in gone


def test_a_use_counts_from_when_it_happens():
    cap = Cap(2)
    cap.admit("used", cost=100, size=10, now=0)
    gone: list[str] = []
    for number in range(40):
        if number == 9:
            # By then the others are worth nearly as much.
            cap.hit("used")
        gone += cap.admit(f"{number}", cost=10, size=10, now=0)
    # Worth 10 when it came and 8 + 20 since it was used, as much as the 28th of the others: the older gives way.
    assert gone.index("used") == 27


@given(st.lists(st.tuples(IDS, st.none() | st.floats(-1e6, 1e6)), max_size=200))
def test_a_lazy_heap_knows_the_least_of_what_is_in_it(moves):
    heap = LazyHeap()
    keys: dict[str, float] = {}
    for id, key in moves:
        if key is None:
            heap.discard(id)
            keys.pop(id, None)
        else:
            heap.push(id, key)
            keys.pop(id, None)
            keys[id] = key
        least, first = heap.least()
        assert least == min(keys.values(), default=float("inf"))
        assert first == next((id for id, key in keys.items() if key == least), "")


def test_dead_lines_do_not_pile_up():
    heap, chance = LazyHeap(), random.Random(0)
    for number in range(10_000):
        heap.push(f"{number % 50}", chance.random())
        assert len(heap._heap) <= 2 * 50 + 17
