"""Invariants of a line, for any order of those who come, leave and are served."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatch_core.limit.line import Line

AGING = 10.0
WEIGHTS = {"light": 1.0, "heavy": 2.0}
KEYS = st.sampled_from(sorted(WEIGHTS))


@dataclass(eq=False)
class Call:
    key: str
    size: float
    priority: float = 0.0
    since: float = 0.0
    again: bool = False
    gone: bool = True

    @property
    def due(self) -> float:
        return self.since + self.priority * AGING


class LineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.line: Line[Call] = Line(aging=AGING, weight=WEIGHTS.__getitem__)
        self.standing: list[Call] = []
        self.served: list[Call] = []

    @rule(key=KEYS, size=st.integers(1, 50), priority=st.sampled_from([0, 0, 1, 5]), gap=st.floats(0, 20))
    def come(self, key: str, size: int, priority: float, gap: float) -> None:
        self.now += gap
        self.standing.append(Call(key, size, priority, self.now))
        self.line.push(self.standing[-1])

    @precondition(lambda self: self.served)
    @rule(data=st.data())
    def come_again(self, data: st.DataObject) -> None:
        call = self.served.pop(data.draw(st.integers(0, len(self.served) - 1)))
        call.again = True
        self.standing.append(call)
        self.line.push(call)

    @precondition(lambda self: self.standing)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        call = self.standing.pop(data.draw(st.integers(0, len(self.standing) - 1)))
        self.line.leave(call)
        self.line.leave(call)

    @precondition(lambda self: self.standing)
    @rule()
    def serve(self) -> None:
        head = self.line.head()
        assert head is not None
        self.line.serve(head)
        self.standing.remove(head)
        self.served.append(head)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.line) == len(self.standing)
        head = self.line.head()
        assert head in self.standing if self.standing else head is None

    @invariant()
    def the_head_is_the_right_one(self) -> None:
        head = self.line.head()
        if head is None:
            return
        again = [call for call in self.standing if call.again]
        if again:
            assert head.again
            assert head.since == min(call.since for call in again)
            return
        # Of those with its key and priority it came first.
        assert head is next(c for c in self.standing if (c.key, c.priority) == (head.key, head.priority))
        # Nobody was due before all of its priority.
        assert min(c.due for c in self.standing) == min(c.due for c in self.standing if c.priority == head.priority)

    @invariant()
    def what_goes_before_a_newcomer_is_a_share(self) -> None:
        for key in WEIGHTS:
            assert 0.0 <= self.line.share_ahead(0.0, key, 1.0) <= 1.0

    def teardown(self) -> None:
        for _ in range(len(self.standing)):
            self.serve()
        assert self.line.head() is None


TestALine = LineMachine.TestCase


CALLS = st.tuples(KEYS, st.integers(1, 5), st.booleans())


@given(st.lists(CALLS, min_size=2, max_size=60), st.lists(CALLS, max_size=60), st.integers(0, 20))
def test_at_every_moment_each_key_has_had_its_share_whoever_left(first, later, served_between):
    """Up to two calls of each; those who leave unserved count for nothing, however large."""
    line: Line[Call] = Line(aging=AGING, weight=WEIGHTS.__getitem__)
    left, had, largest = dict.fromkeys(WEIGHTS, 0), dict.fromkeys(WEIGHTS, 0.0), dict.fromkeys(WEIGHTS, 0.0)

    def come(calls: list[tuple[str, int, bool]]) -> None:
        pushed = [(Call(key, 20 * size if leaves else size), leaves) for key, size, leaves in calls]
        for call, leaves in pushed:
            line.push(call)
            if not leaves:
                left[call.key] += 1
                largest[call.key] = max(largest[call.key], call.size)
        for call, leaves in pushed:
            if leaves:
                line.leave(call)

    def serve(most: int) -> None:
        """As long as both keys wait."""
        while most and min(left.values()) > 0:
            most -= 1
            head = line.head()
            assert head is not None
            line.serve(head)
            left[head.key] -= 1
            had[head.key] += head.size
            light, heavy = (had[key] / WEIGHTS[key] for key in ("light", "heavy"))
            assert abs(light - heavy) <= sum(2 * largest[key] / WEIGHTS[key] for key in WEIGHTS)

    come(first)
    serve(served_between)
    if min(left.values()) > 0:
        come(later)
        serve(200)
    assert len(line) == sum(left.values())
