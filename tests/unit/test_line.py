"""Who is next in a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from dispatch_core.limit.line import Line


@dataclass(eq=False)
class Call:
    name: str
    key: str = ""
    size: float = 1.0
    priority: float = 0.0
    since: float = 0.0
    again: bool = False
    gone: bool = True


def _line(aging: float = 30.0, **weights: float) -> Line[Call]:
    return Line(aging=aging, weight=lambda key: weights.get(key, 1.0))


def _push(line: Line[Call], calls: Iterable[Call]) -> list[Call]:
    pushed = list(calls)
    for call in pushed:
        line.push(call)
    return pushed


def _served(line: Line[Call], most: int = 10_000) -> list[str]:
    """Serve everybody, or some; their names in turn."""
    names = []
    while len(names) < most and (head := line.head()) is not None:
        line.serve(head)
        names.append(head.name)
    return names


def _many(key: str, number: int, size: float = 1.0, **more: float) -> list[Call]:
    return [Call(f"{key}{index}", key, size, **more) for index in range(number)]


def test_an_empty_line_has_no_head():
    line = _line()
    assert line.head() is None
    assert len(line) == 0


def test_who_comes_first_goes_first():
    line = _line()
    _push(line, _many("a", 5))
    assert _served(line) == ["a0", "a1", "a2", "a3", "a4"]
    assert len(line) == 0


def test_looking_at_the_head_does_not_move_the_line():
    line = _line()
    first, _ = _push(line, _many("a", 2))
    assert line.head() is line.head() is first
    assert len(line) == 2


# Priorities


def test_the_lower_priority_goes_first():
    line = _line()
    _push(line, [Call("batch", priority=5), Call("user", priority=1), Call("urgent", priority=0)])
    assert _served(line) == ["urgent", "user", "batch"]


@pytest.mark.parametrize(("later", "first"), [(29, "urgent"), (31, "patient")])
def test_one_step_of_priority_is_worth_aging_seconds(later, first):
    line = _line(aging=30.0)
    _push(line, [Call("patient", priority=1, since=0), Call("urgent", priority=0, since=later)])
    assert _served(line, 1) == [first]


def test_nobody_starves_behind_those_who_are_more_urgent():
    line = _line(aging=10.0)
    line.push(Call("patient", priority=3, since=0.0))
    served = []
    for second in range(100):
        line.push(Call(f"urgent{second}", priority=0, since=float(second)))
        served += _served(line, 1)
    assert served.index("patient") <= 31


def test_priorities_may_be_negative_and_fractional():
    line = _line()
    _push(line, [Call("c", priority=0.5), Call("b", priority=0), Call("a", priority=-2)])
    assert _served(line) == ["a", "b", "c"]


def test_priorities_that_nobody_uses_any_more_are_forgotten():
    line = _line()
    for number in range(1_000):
        line.push(Call("x", priority=float(number), since=float(number)))
        assert _served(line) == ["x"]
    _push(line, [Call("b", priority=2.0, since=2e3), Call("a", priority=1.0, since=2e3)])
    assert _served(line) == ["a", "b"]


# Fair shares


@pytest.mark.parametrize(("size_a", "size_b"), [(1, 1), (10, 1), (1, 10), (7, 3)])
@pytest.mark.parametrize(("weight_a", "weight_b"), [(1, 1), (2, 1), (1, 5)])
def test_at_every_moment_each_key_has_had_its_share(size_a, size_b, weight_a, weight_b):
    line = _line(a=weight_a, b=weight_b)
    _push(line, _many("a", 200, size_a) + _many("b", 200, size_b))
    had = {"a": 0.0, "b": 0.0}
    bound = size_a / weight_a + size_b / weight_b
    left = {"a": 200, "b": 200}
    for name in _served(line):
        key = name[0]
        had[key] += size_a if key == "a" else size_b
        left[key] -= 1
        if min(left.values()) == 0:
            break
        assert abs(had["a"] / weight_a - had["b"] / weight_b) <= bound + 1e-9


def test_a_key_alone_gets_everything():
    line = _line(a=0.01)
    _push(line, _many("a", 100))
    assert len(_served(line, 100)) == 100


def test_who_comes_late_neither_catches_up_nor_waits_for_the_others_to_end():
    line = _line()
    _push(line, _many("a", 100))
    _served(line, 50)
    _push(line, _many("b", 100))
    served = _served(line, 20)
    assert 9 <= sum(name.startswith("a") for name in served) <= 11


def test_who_had_everything_alone_owes_nothing_for_it():
    line = _line()
    _push(line, _many("a", 50))
    _served(line)
    _push(line, _many("a", 20) + _many("b", 20))
    served = _served(line, 20)
    assert 9 <= sum(name.startswith("a") for name in served) <= 11


def test_a_thousand_keys_come_by_turns():
    line = _line()
    for turn in range(3):
        _push(line, [Call(f"{key}-{turn}", str(key)) for key in range(1_000)])
    first = _served(line, 1_000)
    assert len({name.split("-")[0] for name in first}) == 1_000


def test_keys_that_went_are_forgotten_and_come_back_as_new():
    line = _line()
    for number in range(2_000):
        line.push(Call("once", f"tenant {number}"))
        _served(line)
    _push(line, [Call("a", "tenant 5"), Call("b", "tenant 6"), Call("c", "tenant 5")])
    assert sorted(_served(line)) == ["a", "b", "c"]


def test_keys_share_within_their_priority_only():
    line = _line()
    _push(line, _many("b", 3, priority=1.0) + _many("a", 3, priority=0.0))
    assert _served(line) == ["a0", "a1", "a2", "b0", "b1", "b2"]


# Coming again


def test_who_comes_again_goes_before_everybody():
    line = _line()
    _push(line, [Call("urgent", priority=-100), Call("again", priority=100, since=50, again=True)])
    assert _served(line) == ["again", "urgent"]


def test_of_those_who_come_again_the_earlier_goes_first():
    for order in itertools.permutations([1.0, 2.0, 3.0]):
        line = _line()
        _push(line, [Call("new", since=0.0), *(Call(f"{since:.0f}", since=since, again=True) for since in order)])
        assert _served(line) == ["1", "2", "3", "new"]


def test_who_comes_again_may_leave():
    line = _line()
    first, _ = _push(line, [Call("first", since=1, again=True), Call("second", since=2, again=True)])
    line.leave(first)
    assert len(line) == 1
    assert _served(line) == ["second"]


# Leaving


@pytest.mark.parametrize("index", range(5))
def test_anybody_may_leave_from_wherever_he_stands(index):
    line = _line()
    calls = _push(line, [Call(f"{i}", "ab"[i % 2], priority=i // 3) for i in range(5)])
    expected = [name for name in _served(_copy(calls)) if name != str(index)]
    line.leave(calls[index])
    assert len(line) == 4
    assert _served(line) == expected


def _copy(calls: list[Call]) -> Line[Call]:
    line = _line()
    _push(line, [Call(c.name, c.key, c.size, c.priority, c.since, c.again) for c in calls])
    return line


def test_leaving_twice_is_leaving_once():
    line = _line()
    first, _ = _push(line, _many("a", 2))
    for _ in range(3):
        line.leave(first)
    assert len(line) == 1
    assert _served(line) == ["a1"]
    line.leave(first)
    assert len(line) == 0


def test_who_was_served_cannot_leave():
    line = _line()
    first, _ = _push(line, _many("a", 2))
    line.serve(first)
    line.leave(first)
    assert len(line) == 1


def test_when_all_have_left_nobody_is_next():
    line = _line()
    for call in _push(line, _many("a", 50) + _many("b", 50, priority=1.0)):
        line.leave(call)
    assert line.head() is None
    assert line.share_ahead(5.0, "a", 1.0) == 0
    line.push(Call("new"))
    assert _served(line) == ["new"]


def test_who_leaves_unserved_does_not_cost_his_key_its_share():
    line = _line()
    leaving = _push(line, _many("a", 10, 100.0))
    line.push(Call("last of a", "a"))
    _push(line, _many("b", 500))
    for call in leaving:
        line.leave(call)
    assert "last of a" in _served(line, 3)


def test_who_comes_after_others_of_his_key_have_left_does_not_pay_for_them():
    line = _line()
    for call in _push(line, _many("a", 10, 100.0)):
        line.leave(call)
    _push(line, _many("b", 500))
    line.push(Call("new of a", "a"))
    assert "new of a" in _served(line, 3)


# What goes before a call that comes now


def test_who_is_alone_has_nobody_before_him():
    assert _line().share_ahead(0.0, "a", 1.0) == 0


def test_all_of_ones_own_key_goes_before():
    line = _line()
    _push(line, _many("a", 10))
    assert line.share_ahead(0.0, "a", 1.0) == 1


def test_those_of_lower_urgency_do_not_go_before():
    line = _line()
    _push(line, _many("a", 10, priority=1.0))
    assert line.share_ahead(0.0, "a", 1.0) == 0
    assert line.share_ahead(1.0, "a", 1.0) == 1
    assert line.share_ahead(2.0, "a", 1.0) == 1


def test_of_other_keys_only_their_share_goes_before():
    line = _line()
    _push(line, _many("a", 1_000))
    assert line.share_ahead(0.0, "b", 1.0) <= 0.01
    _push(line, _many("b", 10))
    assert line.share_ahead(0.0, "b", 1.0) == pytest.approx(20 / 1_010, abs=0.01)


def test_who_comes_again_is_not_overtaken_for_ever_by_keys_that_are_new():
    line = _line()
    regular = Call("regular", "regular")
    line.push(regular)
    line.serve(regular)
    again, served = Call("again", "regular"), 0
    line.push(again)
    while line.head() is not again:
        newcomer = Call("new", f"new {served}")
        line.push(newcomer)
        head = line.head()
        line.serve(head)
        served += 1
        assert served < 10


def test_keys_that_were_served_and_left_are_forgotten():
    line = _line()
    for number in range(5_000):
        one = Call("one", f"{number}")
        line.push(one)
        line.serve(one)
    assert sum(len(queue._flows) for queue in line._classes.values()) < 200


@pytest.mark.parametrize("overtaken", [False, True])
def test_who_was_served_and_comes_again_goes_first_and_counts_once(overtaken):
    line = _line()
    one, *_ = calls = _push(line, _many("a", 3))
    line.leave(one) if overtaken else line.serve(one)
    one.again = True
    line.push(one)
    assert len(line) == 3
    assert line.share_ahead(0.0, "a", 1.0) == 1.0
    assert _served(line) == [call.name for call in calls]
    assert len(line) == 0
    assert line.head() is None


def test_who_comes_again_is_overtaken_and_comes_once_more_stands_there_once():
    line = _line()
    first, second = _push(line, [Call("first", since=1, again=True), Call("second", since=2, again=True)])
    line.leave(second)
    line.push(second)
    _push(line, [Call("new")])
    assert line.share_ahead(0.0, "", 1.0) == 1.0
    assert line.share_ahead(0.0, "", 1.0, since=2) == pytest.approx(1 / 3)
    line.leave(second)
    assert line.share_ahead(0.0, "", 1.0, since=3) == 0.5
    assert _served(line) == [first.name, "new"]
