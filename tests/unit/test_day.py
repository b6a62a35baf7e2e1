"""Limits per day, as tables of instants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.limit.day import DAY, DayGauge
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.window import Log

HOUR = 3_600.0


def _quota(limit: float = 100.0) -> Quota:
    return Quota([DayGauge("requests_per_day", limit, index=0)], Log(60.0))


def _charged(quota: Quota, amount: float, at: float) -> Charge:
    charge = Charge([amount])
    quota.charge(charge, at)
    return charge


def test_a_day_may_be_used_in_a_minute():
    quota = _quota()
    assert all(quota.try_charge(Charge([1]), second / 2) for second in range(100))
    assert not quota.try_charge(Charge([1]), 51)


@pytest.mark.parametrize("since", [0.0, 7.5, 86_399.0, 1e9])
def test_what_was_used_is_free_a_day_later_and_not_before(since):
    quota = _quota()
    _charged(quota, 100, since)
    assert quota.wait([1], since + DAY - 1) > 1
    wait = quota.wait([1], since + DAY - 1)
    assert wait <= HOUR
    assert quota.wait([100], since + DAY - 1 + wait) == 0


def test_only_as_much_must_be_free_again_as_is_needed():
    quota = _quota()
    for hour in range(10):
        _charged(quota, 10, hour * HOUR)
    assert quota.wait([10], 10 * HOUR) == pytest.approx(14 * HOUR, abs=HOUR / 2)
    assert quota.wait([20], 10 * HOUR) == pytest.approx(15 * HOUR, abs=HOUR / 2)


def test_settling_rewrites_the_charge_where_it_was_made():
    quota = _quota()
    first = _charged(quota, 60, 0)
    _charged(quota, 40, 10 * HOUR)
    quota.settle(first, [20])
    assert quota.wait([40], 11 * HOUR) == 0
    assert quota.wait([41], 11 * HOUR) > 12 * HOUR


def test_only_the_first_settlement_counts():
    quota = _quota()
    charge = _charged(quota, 60, 0)
    for real in (20, 0, None):
        quota.settle(charge, None if real is None else [real])
    assert quota.gauges[0].used == 20


def test_settling_after_the_day_is_over_changes_nothing():
    quota = _quota()
    charge = _charged(quota, 60, 0)
    assert quota.wait([100], 2 * DAY) == 0
    quota.settle(charge, [90])
    assert quota.gauges[0].used == 0
    assert quota.wait([100], 2 * DAY) == 0


def test_what_goes_before_delays_by_days():
    quota = _quota()
    assert quota.wait_behind([10], [90], 0) == 0
    _charged(quota, 100, 0)
    assert quota.wait_behind([10], [50], 0) == pytest.approx(DAY, rel=0.05)


def test_a_clock_that_jumps_back_mints_nothing():
    quota = _quota()
    _charged(quota, 100, 3 * DAY)
    for now in (0.0, DAY, 3 * DAY - 1):
        assert quota.wait([1], now) >= DAY


def test_headers_and_refusals_leave_the_count_alone():
    quota = _quota()
    charge = _charged(quota, 50, 0)
    quota.sync({"requests_per_day": Reading(100, 0, None)}, charge, 1)
    quota.refuse(charge, "requests_per_day", {}, 5.0, 1)
    assert quota.wait([50], 1) == pytest.approx(5)
    assert quota.wait([50], 6) == 0


@given(st.lists(st.tuples(st.floats(0, DAY / 2), st.integers(1, 100), st.floats(0, 1)), min_size=1, max_size=30))
def test_no_span_of_a_day_holds_more_than_the_limit(calls):
    quota, now = _quota(), 0.0
    held: list[tuple[float, float]] = []
    for gap, amount, share in calls:
        now += gap
        now += quota.wait([amount], now)
        charge = _charged(quota, amount, now)
        used = int(amount * share)
        quota.settle(charge, [used])
        held.append((now, used))
    for end, _ in held:
        assert sum(used for at, used in held if end - DAY < at <= end) <= 100
