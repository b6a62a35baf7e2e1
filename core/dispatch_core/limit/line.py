"""Who waits, and who is next: priorities with aging, fair shares between keys, first come, first served in both."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar


class Standing(Protocol):
    """What a line must know of those who stand in it.

    ``size``: what the call asks for, in any unit. ``gone``: it left; the line forgets it when it comes across it.
    """

    priority: float
    key: str
    size: float
    since: float
    again: bool
    gone: bool


S = TypeVar("S", bound=Standing)
_FORGET = 64
# The weights of that many keys stand for all: the sum over thousands would cost every call.
_FEW = 32


class _Flow(Generic[S]):
    """Those of one key, each with the virtual time of its arrival, and where the last one served would end."""

    __slots__ = ("ends", "size", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[float, S]] = deque()
        self.size = 0.0
        self.ends = -math.inf


class _FairQueue(Generic[S]):
    """Start-time fair queueing (Goyal, Vin, Cheng, 1996): each key gets its weight's share of what is served, whether
    it asks often or for much; a key alone gets everything. Only who is served counts, not who left."""

    def __init__(self, weight: Callable[[str], float]) -> None:
        self._weight = weight
        self._flows: dict[str, _Flow[S]] = {}
        self._next: list[tuple[float, int, str]] = []
        self._order: deque[S] = deque()
        self._virtual = 0.0
        self._number = 0
        self._most = _FORGET
        self.size = 0.0

    def push(self, one: S) -> None:
        flow = self._flows.get(one.key)
        if flow is None:
            flow = self._flows[one.key] = _Flow()
        flow.waiting.append((self._virtual, one))
        flow.size += one.size
        self.size += one.size
        self._order.append(one)
        if len(flow.waiting) == 1:
            self._line_up(one.key, flow)

    def head(self) -> S | None:
        while self._next:
            waiting = self._flows[self._next[0][2]].waiting
            if not waiting[0][1].gone:
                return waiting[0][1]
            self._advance()
        self._order.clear()
        return None

    def oldest(self) -> S | None:
        order = self._order
        while order and order[0].gone:
            order.popleft()
        return order[0] if order else None

    def served(self) -> None:
        """The head is served."""
        start, _, key = self._next[0]
        flow = self._flows[key]
        one = flow.waiting[0][1]
        flow.ends = start + one.size / self._weight(key)
        # Time goes on with what is served, or new keys without end would keep those waiting that come again.
        active = sum(self._weight(k) for _, _, k in self._next[:_FEW]) * max(1.0, len(self._next) / _FEW)
        self._virtual = max(self._virtual, start) + one.size / active
        self.left(one)
        self._advance()

    def left(self, one: S) -> None:
        """Somebody goes."""
        flow = self._flows.get(one.key)
        if flow is not None:
            flow.size -= one.size
            self.size -= one.size

    def ahead(self, key: str, size: float) -> float:
        """What goes before a call of this key and size that comes now, in sizes: no more than its fair share of the
        time allows the others."""
        flow = self._flows.get(key)
        own = 0.0 if flow is None else flow.size
        if len(self._next) <= 1 and own == self.size:
            return self.size
        others = sum(self._weight(k) for _, _, k in self._next if k != key)
        return min(self.size, own + (own + size) / self._weight(key) * others)

    def _advance(self) -> None:
        _, _, key = heappop(self._next)
        flow = self._flows[key]
        flow.waiting.popleft()
        if flow.waiting:
            self._line_up(key, flow)
        elif len(self._flows) > self._most:
            self._forget()

    def _line_up(self, key: str, flow: _Flow[S]) -> None:
        self._number += 1
        heappush(self._next, (max(flow.waiting[0][0], flow.ends), self._number, key))

    def _forget(self) -> None:
        """Drop the keys that have no claim left; one that was just served still waits for its turn."""
        self._flows = {k: f for k, f in self._flows.items() if f.waiting or f.ends > self._virtual}
        self._most = 2 * len(self._flows) + _FORGET


class Line(Generic[S]):
    """A priority is worth ``aging`` seconds: of two calls the one of the lower number goes first, unless the other
    has waited so much longer for every step between them. Refused calls that come again go before everybody."""

    def __init__(self, *, aging: float, weight: Callable[[str], float]) -> None:
        self._aging = aging
        self._weight = weight
        self._again: deque[S] = deque()
        self._classes: dict[float, _FairQueue[S]] = {}
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def push(self, one: S) -> None:
        self.length += 1
        if one.again:
            # Who left behind others is still there, and may be the one who comes.
            self._again = deque(other for other in self._again if not other.gone)
            # The earlier a call first came, the earlier it comes again.
            at = sum(1 for other in self._again if other.since <= one.since)
            self._again.insert(at, one)
            one.gone = False
            return
        one.gone = False
        queue = self._classes.get(one.priority)
        if queue is None:
            queue = self._classes[one.priority] = _FairQueue(self._weight)
        queue.push(one)

    def head(self) -> S | None:
        while self._again and self._again[0].gone:
            self._again.popleft()
        if self._again:
            return self._again[0]
        if not self.length:
            return None
        queue = self._foremost()
        return None if queue is None else queue.head()

    def serve(self, one: S) -> None:
        """The head goes."""
        self.length -= 1
        if not one.again:
            self._classes[one.priority].served()
        one.gone = True

    def leave(self, one: S) -> None:
        """Somebody goes unserved, from wherever he stands. Leaving twice is once."""
        if one.gone:
            return
        one.gone = True
        self.length -= 1
        if not one.again:
            self._classes[one.priority].left(one)

    def share_ahead(self, priority: float, key: str, size: float, since: float | None = None) -> float:
        """Which share of all that waits goes before a call that comes now, or again ``since`` then: of those of lower
        priority nothing, as long as they have not waited for too long."""
        again = [one for one in self._again if not one.gone]
        total = sum(one.size for one in again) + sum(queue.size for queue in self._classes.values())
        if total <= 0:
            return 0.0
        if since is not None:
            return sum(one.size for one in again if one.since < since) / total
        before = sum(one.size for one in again)
        for other, queue in self._classes.items():
            if other < priority:
                before += queue.size
            elif other == priority:
                before += queue.ahead(key, size)
        return min(1.0, before / total)

    def _foremost(self) -> _FairQueue[S] | None:
        best, when = None, math.inf
        for priority, queue in list(self._classes.items()):
            oldest = queue.oldest()
            if oldest is None:
                if len(self._classes) > _FORGET:
                    del self._classes[priority]
                continue
            due = oldest.since + priority * self._aging
            if due < when:
                best, when = queue, due
        return best
