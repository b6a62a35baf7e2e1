"""What a process knows of the others while their shared quota is away, and when it comes back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.limit.outage import Outage

WINDOW = 60.0


def _over(outage: Outage, now: float, *, forgot: bool = False) -> bool:
    return outage.over(now, forgot=forgot, window=WINDOW)


def test_pauses_double_up_to_a_bound_and_begin_anew_when_it_is_over():
    outage, now, pauses = Outage(2), 0.0, []
    for _ in range(6):
        assert outage.lost(now) == (not pauses)
        pauses.append(_pause(outage, now))
        now += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert outage.lasts
    assert _over(outage, now)
    assert not outage.lasts
    assert not outage.alone(now)
    assert outage.lost(now)
    assert _pause(outage, now) == 1.0


def test_what_never_failed_nobody_misses():
    outage = Outage(4)
    assert not _over(outage, 5.0)
    assert outage.untold(1, 5.0) == (0.0, 0.0)
    assert outage.comparable(5.0)


def test_as_long_as_others_have_not_told_a_redis_that_forgot_their_part_is_theirs():
    outage = Outage(4)
    _over(outage, 0.0, forgot=True)
    assert [outage.untold(seen, 0.1)[0] for seen in (1, 2, 3, 4, 5)] == [0.75, 0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize("forgot", [True, False])
def test_who_is_gone_holds_nothing_back_for_long(forgot: bool):
    outage = Outage(2)
    outage.lost(0.0)
    _over(outage, 1.0, forgot=forgot)
    assert outage.untold(1, 1.1) != (0.0, 0.0)
    assert outage.untold(1, 1.0 + 10.5) == (0.0, 0.0)


def test_what_others_did_alone_is_no_more_than_their_part_of_that_time():
    outage = Outage(2)
    outage.lost(0.0)
    _over(outage, 1.0)
    spent, slots = outage.untold(2, 1.1)
    assert 0.5 * 1.0 / WINDOW < spent < 0.5 * 5.0 / WINDOW
    assert slots == 0.0


def test_lost_once_more_it_still_has_not_heard_the_others():
    outage = Outage(4)
    _over(outage, 0.0, forgot=True)
    outage.lost(0.5)
    _over(outage, 1.5)
    assert outage.untold(1, 1.6) == (0.75, 0.75)


def test_who_is_told_to_wait_looks_again_when_the_others_have_told():
    outage = Outage(2)
    assert outage.patience(59.0, 0.0) == 59.0
    _over(outage, 0.0, forgot=True)
    assert outage.patience(59.0, 1.0) < 2.0
    assert outage.patience(0.5, 1.0) == 0.5
    assert outage.patience(59.0, 11.0) == 59.0


def test_while_others_are_missing_they_are_not_forgotten():
    """Should Redis fail once more, this process must not take it all."""
    outage = Outage(4)
    outage.heard(3, 0.0)
    _over(outage, 0.0, forgot=True)
    outage.heard(1, 0.1)
    assert outage.replicas == 3
    outage.heard(5, 0.2)
    assert outage.replicas == 5
    outage.heard(1, 20.0)
    assert outage.replicas == 1


def test_what_the_provider_counts_is_comparable_when_all_that_nobody_told_has_left_the_window():
    outage = Outage(2)
    outage.lost(0.0)
    _over(outage, 1.0)
    assert not outage.comparable(WINDOW)
    assert outage.comparable(1.0 + WINDOW)


def test_a_closed_one_is_alone_for_ever():
    outage = Outage(2)
    outage.close()
    assert outage.alone(1e12)
    outage.lost(0.0)
    _over(outage, 1.0)
    assert outage.alone(1e12)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["lost", "over", "forgot", "heard"]), st.integers(1, 60))),
)
def test_the_share_of_others_is_always_one(replicas: int, events: list[tuple[float, str, int]]):
    outage, now = Outage(replicas), 0.0
    for passed, what, seen in events:
        now += passed
        if what == "lost":
            outage.lost(now)
        elif what == "heard":
            outage.heard(seen, now)
        else:
            _over(outage, now, forgot=what == "forgot")
        assert outage.replicas >= 1
        for share in outage.untold(seen, now):
            assert 0.0 <= share <= 1.0 - 1.0 / outage.replicas + 1e-12


def _pause(outage: Outage, now: float) -> float:
    """For how long it is alone, found by halving."""
    assert outage.alone(now)
    low, high = now, now + 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if outage.alone(middle) else (low, middle)
    assert math.isfinite(high)
    return round(high - now, 6)
