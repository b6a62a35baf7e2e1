"""Which entry gives way when a store is full: the one whose keeping saves least.

GreedyDual-Size-Frequency (Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
Policy", HP Labs 1998): an entry is worth ``clock + hits × cost ÷ size``, and the clock moves to the worth of what
gave way last. So of two entries of one size the one that saved more tokens stays, a long answer must earn its bytes,
and an old favourite that is asked no more is overtaken in the end.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

from dispatch_core.types import Entry, Vector

_Line = tuple[float, int, str]


def cost(tokens: int, tombstone: bool) -> int:
    """What finding the entry saves: the tokens of its answer; a tombstone has no answer."""
    return 1 if tombstone else max(1, tokens)


def size(entry: Entry, vector: Vector | None) -> int:
    """Bytes that grow with the entry: payload, text and vector."""
    text = len(entry.text) if entry.text.isascii() else len(entry.text.encode("utf-8", "surrogatepass"))
    return len(entry.payload) + text + (0 if vector is None else 4 * len(vector))


class LazyHeap:
    """Ids by a key that may change: the least first, of equals the one that was pushed first. O(log n)."""

    def __init__(self) -> None:
        self._heap: list[_Line] = []
        self._lines: dict[str, _Line] = {}
        self._turn = itertools.count()

    def push(self, id: str, key: float) -> None:
        """Add, or move to a new key."""
        line = self._lines[id] = (key, next(self._turn), id)
        heapq.heappush(self._heap, line)
        if len(self._heap) > 2 * len(self._lines) + 16:
            # More dead lines than live ones.
            self._heap = list(self._lines.values())
            heapq.heapify(self._heap)

    def discard(self, id: str) -> None:
        self._lines.pop(id, None)

    def least(self) -> tuple[float, str]:
        """The least key and its id; infinity and no id if there is none."""
        while self._heap:
            key, _, id = line = self._heap[0]
            if self._lines.get(id) is line:
                return key, id
            heapq.heappop(self._heap)
        return math.inf, ""


@dataclass(slots=True)
class _Item:
    size: int
    rate: float
    hits: int
    clock: float

    @property
    def worth(self) -> float:
        return self.clock + self.hits * self.rate


class Cap:
    """Keeps count of a store's entries, and names those that must go. Not thread-safe: the store has a lock.

    ``max_bytes`` bounds the sum of the entries' sizes; None bounds nothing.
    """

    def __init__(self, max_entries: int | None = None, max_bytes: int | None = None) -> None:
        self._max_entries = math.inf if max_entries is None else max_entries
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        self.clear()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        """The sum of the sizes."""
        return self._bytes

    def clear(self) -> None:
        self._items: dict[str, _Item] = {}
        self._worths, self._ends = LazyHeap(), LazyHeap()
        self._bytes = 0
        self._clock = 0.0

    def hit(self, id: str) -> None:
        """Count a use. The heap learns of it when the entry's turn to give way comes."""
        item = self._items.get(id)
        if item is not None:
            item.hits += 1
            item.clock = self._clock

    def add(self, id: str, *, cost: int, size: int, expires: float | None = None) -> None:
        """Count an entry that is there, or replace what is known of it; its hits stay."""
        hits = self._items[id].hits if id in self._items else 1
        self.remove(id)
        self._insert(id, cost, size, expires, hits)

    def admit(self, id: str, *, cost: int, size: int, expires: float | None = None, now: float) -> list[str]:
        """Like `add`, and return who gives way: those that have expired by ``now`` first.

        An entry larger than the whole cap is not admitted: it gives way itself.
        """
        hits = self._items[id].hits if id in self._items else 1
        self.remove(id)
        if size > self._max_bytes:
            return [id]
        gone = []
        while len(self._items) >= self._max_entries or self._bytes + size > self._max_bytes:
            gone.append(self._give_way(now))
        # Only now, for what is new is worth more than what just gave way for it.
        self._insert(id, cost, size, expires, hits)
        return gone

    def touch(self, id: str, expires: float | None) -> None:
        if expires is None:
            self._ends.discard(id)
        elif id in self._items:
            self._ends.push(id, expires)

    def remove(self, id: str) -> None:
        item = self._items.pop(id, None)
        if item is not None:
            self._bytes -= item.size
            self._worths.discard(id)
            self._ends.discard(id)

    def _insert(self, id: str, cost: int, size: int, expires: float | None, hits: int) -> None:
        item = self._items[id] = _Item(size, cost / max(1, size), hits, self._clock)
        self._bytes += size
        self._worths.push(id, item.worth)
        self.touch(id, expires)

    def _give_way(self, now: float) -> str:
        end, id = self._ends.least()
        if end <= now:
            self.remove(id)
            return id
        worth, id = self._worths.least()
        while self._items[id].worth > worth:
            # It was used since it was pushed.
            self._worths.push(id, self._items[id].worth)
            worth, id = self._worths.least()
        self._clock = worth
        self.remove(id)
        return id
