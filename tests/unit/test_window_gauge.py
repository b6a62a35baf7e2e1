"""A limit over a sliding window, paced within it, as tables of instants."""

from __future__ import annotations

import pytest

from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.window import Log, WindowGauge


def _quota(
    limit: float = 60.0,
    *,
    window: float = 60.0,
    burst: float = 60.0,
    pad: float = 0.0,
    catch_up: float = 0.0,
    estimated: bool = False,
) -> Quota:
    log = Log(window + pad)
    gauge = WindowGauge(
        "tokens", limit, window=window, log=log, burst=burst, index=0, catch_up=catch_up, estimated=estimated
    )
    quota = Quota([gauge], log)
    # From its first headers on, a quota notes with every call what to compare its headers with.
    quota.sync({}, Charge([0.0]), 0.0)
    return quota


def _charged(quota: Quota, amount: float, at: float, noise: float = 0.0) -> Charge:
    charge = Charge([amount], noise)
    quota.charge(charge, at)
    return charge


def _told(quota: Quota, limit: float, remaining: float, now: float) -> None:
    """One unit is charged, and its response tells where the quota stands."""
    charge = _charged(quota, 1, now)
    quota.sync({"tokens": Reading(limit, remaining, None)}, charge, now)
    quota.settle(charge, None)


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
    ],
)
def test_a_span_of_the_window_never_holds_more_than_the_limit(charges, now, amount, wait):
    quota = _quota()
    for at, charged in charges:
        _charged(quota, charged, at)
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
        # What is larger than the burst goes from a full bucket, as debt that those after it wait for.
        ([(0, 1)], 0, 30, 1),
        ([(0, 30)], 0, 1, 21),
        # The bucket never holds more than the burst.
        ([(0, 10)], 50, 20, 0),
        ([(0, 10), (50, 10)], 50, 1, 1),
    ],
)
def test_the_burst_spreads_the_charges(charges, now, amount, wait):
    quota = _quota(burst=10)
    for at, charged in charges:
        _charged(quota, charged, at)
    assert quota.wait([amount], now) == pytest.approx(wait)


def test_the_quick_look_agrees_with_the_wait_when_there_is_plenty_of_room():
    quota = _quota(burst=10)
    assert quota.try_charge(Charge([4]), 0)
    assert quota.try_charge(Charge([6]), 0)
    assert not quota.try_charge(Charge([1]), 0)
    assert quota.wait([1], 0) == pytest.approx(1)
    assert quota.try_charge(Charge([1]), 1.001)


def test_what_goes_before_delays():
    quota = _quota(burst=10)
    assert quota.wait_behind([5], [5], 0) == 0
    assert quota.wait_behind([5], [15], 0) == pytest.approx(10)
    assert quota.wait_behind([5], [600], 0) >= 590


def test_the_pad_makes_the_window_longer():
    quota = _quota(pad=0.5)
    _charged(quota, 60, 0)
    assert quota.wait([60], 60) == pytest.approx(0.5)
    assert quota.wait([60], 60.5) == 0


@pytest.mark.parametrize(
    ("real", "now", "amount", "wait"),
    [(0, 0, 60, 0), (10, 0, 50, 0), (10, 0, 51, 60), (60, 0, 1, 60), (None, 0, 11, 60)],
)
def test_settling_rewrites_the_charge_in_place(real, now, amount, wait):
    quota = _quota()
    quota.settle(_charged(quota, 50, 0), None if real is None else [real])
    assert quota.wait([amount], now) == pytest.approx(wait)


def test_only_the_first_settlement_counts():
    quota = _quota(burst=50)
    charge = _charged(quota, 50, 0)
    for real in (20, 0, 60, None):
        quota.settle(charge, None if real is None else [real])
    [gauge] = quota.gauges
    assert gauge.used == 20
    assert quota.wait([30], 0) == 0
    assert quota.wait([31], 0) > 0


def test_settling_above_the_estimate_is_paid_later():
    quota = _quota()
    quota.settle(_charged(quota, 10, 0), [70])
    assert quota.wait([1], 0) == pytest.approx(60)
    assert quota.wait([60], 60) == pytest.approx(10)


def test_settling_after_the_window_has_passed_corrects_the_level_alone():
    quota = _quota(burst=10)
    charge = _charged(quota, 10, 0)
    quota.wait([0], 70)
    quota.settle(charge, [60])
    assert quota.gauges[0].used == 0
    assert quota.wait([1], 70) == pytest.approx(41)


def test_a_refund_never_fills_the_bucket_above_the_burst():
    quota = _quota(burst=10)
    charge = _charged(quota, 10, 0)
    quota.wait([0], 30)
    quota.settle(charge, [0])
    _charged(quota, 10, 30)
    assert quota.wait([10], 30) == pytest.approx(10)


def test_a_clock_that_jumps_back_mints_nothing():
    quota = _quota(burst=10)
    _charged(quota, 10, 100)
    for now in (50, 0, 99):
        assert quota.wait([5], now) == pytest.approx(5)
        assert not quota.try_charge(Charge([5]), now)
    assert quota.wait([5], 105) == 0
    _charged(quota, 5, 20)
    assert quota.wait([60], 105) == pytest.approx(60)


# What is kept free


def test_room_is_kept_for_what_the_calls_under_way_may_cost_more_than_estimated():
    quota = _quota(estimated=True)
    charge = _charged(quota, 10, 0, noise=25.0)
    assert quota.wait([30], 0) == 0
    assert quota.wait([50], 0) > 0
    quota.settle(charge, [10])
    assert quota.wait([50], 0) == 0


def test_counts_need_no_room_for_errors():
    quota = _quota(estimated=False)
    _charged(quota, 10, 0, noise=25.0)
    assert quota.wait([50], 0) == 0


def test_the_errors_of_many_calls_cancel_out():
    one, many = _quota(estimated=True), _quota(estimated=True)
    _charged(one, 20, 0, noise=16.0)
    for _ in range(4):
        _charged(many, 5, 0, noise=1.0)
    room = [next(amount for amount in range(60, 0, -1) if quota.wait([amount], 0) == 0) for quota in (one, many)]
    assert room[0] < room[1] < 40


def test_a_call_within_the_limit_goes_into_an_empty_window_however_much_is_kept_free():
    quota = _quota(estimated=True)
    quota.charge(Charge([1], 1e6), 0)
    assert quota.wait([60], 0) == pytest.approx(60)
    assert quota.wait([60], 60) == 0


def test_a_call_that_is_never_settled_keeps_no_room_free_after_its_window():
    quota = _quota(estimated=True)
    for at in range(50):
        _charged(quota, 1, at, noise=25.0)
    assert quota.wait([0], 200) == 0
    _charged(quota, 1, 200)
    assert quota.wait([59], 200) == 0


# Catching up


def _busy(quota: Quota, since: float, until: float) -> float:
    """Charge one unit whenever it fits; how much was charged."""
    now, charged = since, 0
    while now < until:
        while quota.wait([1], now) == 0:
            _charged(quota, 1, now)
            charged += 1
        now += 0.25
    return charged


def test_nothing_is_caught_up_where_nothing_was_lost():
    steady, eager = _quota(burst=2), _quota(burst=2, catch_up=0.5)
    assert _busy(steady, 0, 300) == pytest.approx(_busy(eager, 0, 300), abs=2)


def test_capacity_that_was_lost_is_caught_up_within_the_window():
    steady, eager = _quota(burst=2), _quota(burst=2, catch_up=0.5)
    for quota in (steady, eager):
        _busy(quota, 0, 30)
    assert _busy(eager, 50, 65) > _busy(steady, 50, 65) + 2


def test_catching_up_keeps_the_limit_of_every_window():
    quota = _quota(burst=2, catch_up=1.0)
    times: list[float] = []
    for since, until in ((0, 20), (50, 110), (130, 220)):
        now = float(since)
        while now < until:
            if quota.wait([1], now) == 0:
                _charged(quota, 1, now)
                times.append(now)
            else:
                now += 0.25
    assert max(sum(1 for at in times if end - 60 < at <= end) for end in times) <= 60


def test_after_a_refusal_nothing_is_caught_up_for_a_while():
    calm, upset = _quota(burst=2, catch_up=0.5), _quota(burst=2, catch_up=0.5)
    for quota in (calm, upset):
        _busy(quota, 0, 30)
    upset.refuse(_charged(upset, 1, 50), None, {}, 0.0, 50)
    assert _busy(upset, 50, 60) < _busy(calm, 50, 60)


# What the provider tells


def test_headers_that_agree_change_nothing():
    quota = _quota()
    for second in range(20):
        _told(quota, 60, 59 - second, second)
    assert quota.wait([40], 20) == 0


def test_what_others_use_is_left_to_them():
    quota = _quota(600.0)
    for second in range(30):
        _told(quota, 600, 600 - 200 - second, second)
    assert quota.wait([300], 30) == 0
    assert quota.wait([450], 30) > 0


def test_others_who_leave_are_forgotten():
    quota = _quota(600.0)
    for second in range(30):
        _told(quota, 600, 300, second)
    assert quota.wait([450], 30) > 0
    for second in range(100, 400):
        _told(quota, 600, 600 - min(second - 99, 60), second)
    assert quota.wait([450], 460) == 0


def test_a_server_that_counts_less_than_we_do_lends_nothing():
    quota = _quota()
    for second in range(20):
        _told(quota, 60, 60, second)
    assert quota.wait([40], 20) == 0
    assert quota.wait([41], 20) > 0


@pytest.mark.parametrize("seconds", [1, 10])
def test_a_limit_told_for_a_slice_of_the_minute_shortens_the_burst(seconds):
    quota = _quota(6_000.0, burst=3_000.0, catch_up=0.05)
    slice_limit = 100.0 * seconds
    _told(quota, slice_limit, slice_limit / 2, 0)
    quota.wait([0], 100)
    assert quota.wait([slice_limit], 100) == 0
    _charged(quota, slice_limit, 100)
    assert quota.wait([slice_limit], 100) > 0
    assert _busy(quota, 200, 200 + seconds) <= 2 * slice_limit


@pytest.mark.parametrize("limit", [0.001, 500.0, 1e300])
def test_a_limit_that_cannot_be_meant_is_ignored(limit):
    quota = _quota()
    _told(quota, limit, 0, 0)
    assert quota.wait([59], 0) == 0
    assert quota.gauges[0].limit == 60


def test_after_a_refusal_the_pause_is_kept_and_what_follows_is_paced():
    quota = _quota(burst=30)
    quota.refuse(_charged(quota, 1, 10), None, {}, 5.0, 10)
    assert quota.wait([0], 10) == pytest.approx(5)
    assert not quota.try_charge(Charge([1]), 14.9)
    assert quota.wait([30], 15) > 25


def test_a_volley_of_refusals_is_one_reason_to_be_calm():
    log = Log(60.0)
    gauge = WindowGauge("tokens", 100, window=60.0, log=log, burst=10, index=0, catch_up=0.1)
    volley = [Charge([1.0]) for _ in range(10)]
    for charge in volley:
        charge.at = 1.0
    for charge in volley:
        gauge.refuse(charge, 0.0, 2.0)
    assert gauge._calm < 2.0 + 120
