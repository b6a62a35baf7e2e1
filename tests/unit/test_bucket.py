"""The arithmetic of a quota, as tables of instants."""

from __future__ import annotations

import math

import pytest

from dispatch_core.limit.bucket import Dimension, WindowQuota


def _quota(limit: float = 60.0, *, window: float = 60.0, burst: float = 60.0, pad: float = 0.0) -> WindowQuota:
    return WindowQuota([Dimension("tokens", limit, window, burst)], window=window, pad=pad)


@pytest.mark.parametrize(
    ("charges", "now", "amount", "wait"),
    [
        # A new quota is full.
        ([], 0, 60, 0),
        # The window slides: what was charged at 0 is free again at 60.
        ([(0, 60)], 0, 1, 60),
        ([(0, 60)], 59, 60, 1),
        ([(0, 60)], 60, 60, 0),
        # Enough must leave the window, not all.
        ([(0, 20), (10, 20), (20, 20)], 20, 20, 40),
        ([(0, 20), (10, 20), (20, 20)], 20, 21, 50),
        ([(0, 20), (10, 20), (20, 20)], 20, 60, 60),
        # What fits beside the rest need not wait for the window.
        ([(0, 50)], 0, 10, 0),
        # Long after, everything is free.
        ([(0, 60)], 1e6, 60, 0),
        # More than the limit never fits.
        ([], 0, 61, math.inf),
    ],
)
def test_a_span_of_the_window_never_holds_more_than_the_limit(charges, now, amount, wait):
    quota = _quota()
    for at, charged in charges:
        quota.charge([charged], at)
    assert quota.wait([amount], now) == pytest.approx(wait)


@pytest.mark.parametrize(
    ("charges", "now", "amount", "wait"),
    [
        # A burst of ten, then one a second.
        ([], 0, 10, 0),
        ([(0, 10)], 0, 1, 1),
        ([(0, 10)], 0, 10, 10),
        ([(0, 10)], 4, 4, 0),
        ([(0, 10)], 4, 5, 1),
        # What is larger than the burst goes from a full bucket, as debt.
        ([(0, 1)], 0, 30, 1),
        ([(0, 30)], 0, 1, 21),
        # The bucket never holds more than the burst.
        ([(0, 10)], 50, 20, 0),
        ([(0, 10), (50, 10)], 50, 1, 1),
    ],
)
def test_the_bucket_spreads_the_charges(charges, now, amount, wait):
    quota = _quota(burst=10)
    for at, charged in charges:
        quota.charge([charged], at)
    assert quota.wait([amount], now) == pytest.approx(wait)


def test_the_pad_makes_the_window_longer():
    quota = _quota(pad=0.5)
    quota.charge([60], 0)
    assert quota.wait([60], 60) == pytest.approx(0.5)
    assert quota.wait([60], 60.5) == 0


def test_the_slowest_dimension_decides():
    requests, tokens = Dimension("requests", 2, 60, 2), Dimension("tokens", 100, 60, 100)
    quota = WindowQuota([requests, tokens], window=60, pad=0)
    quota.charge([1, 90], 0)
    assert quota.wait([1, 10], 0) == 0
    assert quota.wait([1, 11], 0) == pytest.approx(60)
    quota.charge([1, 1], 30)
    assert quota.wait([1, 1], 30) == pytest.approx(30)


@pytest.mark.parametrize(
    ("real", "now", "amount", "wait"),
    [(0, 0, 60, 0), (10, 0, 50, 0), (10, 0, 51, 60), (60, 0, 1, 60), (None, 0, 11, 60)],
)
def test_settling_rewrites_the_charge_in_place(real, now, amount, wait):
    quota = _quota()
    quota.settle(quota.charge([50], 0), None if real is None else [real])
    assert quota.wait([amount], now) == pytest.approx(wait)


def test_only_the_first_settlement_counts():
    quota = _quota()
    charge = quota.charge([50], 0)
    for real in (20, 0, 60, None):
        quota.settle(charge, None if real is None else [real])
    assert quota.dimensions[0].used == 20
    assert quota.dimensions[0].level == 40


def test_settling_above_the_estimate_is_paid_later():
    quota = _quota()
    quota.settle(quota.charge([10], 0), [70])
    assert quota.wait([1], 0) == pytest.approx(60)
    assert quota.wait([60], 60) == pytest.approx(10)


def test_settling_after_the_window_has_passed_leaves_the_window_alone():
    quota = _quota(burst=10)
    charge = quota.charge([10], 0)
    quota.wait([0], 70)
    quota.settle(charge, [60])
    assert quota.dimensions[0].used == 0
    assert quota.wait([1], 70) == pytest.approx(41)


def test_a_clock_that_jumps_back_mints_nothing():
    quota = _quota(burst=10)
    quota.charge([10], 100)
    for now in (50, 0, 99):
        assert quota.wait([5], now) == pytest.approx(5)
    assert quota.wait([5], 105) == 0
    quota.charge([5], 20)
    assert quota.wait([60], 105) == pytest.approx(60)
