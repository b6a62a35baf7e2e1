"""All limits of a provider at once: a call is charged to every gauge or to none."""

from __future__ import annotations

import math

import pytest

from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.day import DayGauge
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log, WindowGauge


def _quota() -> Quota:
    """Ten requests and a hundred tokens a minute, two calls at once, 500 tokens a day."""
    log = Log(60.0)
    return Quota(
        [
            WindowGauge("requests", 10, window=60.0, log=log, burst=10, index=0),
            WindowGauge("tokens", 100, window=60.0, log=log, burst=100, index=1),
            SlotGauge("concurrency", 2),
            DayGauge("tokens_per_day", 500, index=3),
        ],
        log,
    )


def _used(quota: Quota) -> list[float]:
    return [gauge.used for gauge in quota.gauges]


def _charged(quota: Quota, tokens: float, at: float) -> Charge:
    charge = Charge([1, tokens, 1, tokens])
    quota.charge(charge, at)
    return charge


@pytest.mark.parametrize("amounts", [[11, 1, 1, 1], [1, 101, 1, 1], [1, 1, 3, 1], [1, 1, 1, 501]])
def test_what_does_not_fit_one_limit_is_charged_to_none(amounts):
    quota = _quota()
    quota.charge(Charge([0, 1, 0, 0]), 0)
    assert not quota.try_charge(Charge(amounts), 0)
    assert _used(quota) == [0, 1, 0, 0]


def test_what_fits_all_limits_is_charged_to_all():
    quota = _quota()
    assert quota.try_charge(Charge([1, 40, 1, 40]), 0)
    assert _used(quota) == [1, 40, 1, 40]


def test_the_slowest_limit_decides():
    quota = _quota()
    first = _charged(quota, 90, 0)
    assert quota.wait([1, 10, 1, 10], 0) == 0
    assert quota.wait([1, 11, 1, 11], 0) == pytest.approx(60)
    _charged(quota, 1, 30)
    assert quota.wait([1, 1, 1, 1], 30) == math.inf
    quota.settle(first, None)
    assert quota.wait([1, 11, 1, 11], 30) == pytest.approx(30)
    assert quota.wait([1, 1, 1, 410], 30) > 3_600


def test_settling_corrects_every_limit_once():
    quota = _quota()
    charge = _charged(quota, 50, 0)
    for _ in range(3):
        quota.settle(charge, [1, 20, 1, 20])
    assert _used(quota) == [1, 20, 0, 20]


def test_giving_everything_back_leaves_nothing():
    quota = _quota()
    quota.settle(_charged(quota, 50, 0), [0, 0, 0, 0])
    assert _used(quota) == [0, 0, 0, 0]


def test_an_empty_window_is_exactly_empty():
    quota = _quota()
    for tenth in range(100):
        quota.settle(_charged(quota, 0.1, tenth / 10), [0.3, 0.1 + 0.2, 1, 0])
    quota.wait([0, 0, 0, 0], 1_000)
    assert _used(quota)[:2] == [0, 0]


# Refusals


@pytest.mark.parametrize(
    ("dimension", "readings", "blamed"),
    [
        # The limit that the refusal names.
        ("requests", {}, "requests"),
        ("tokens", {}, "tokens"),
        # Or whatever the headers show to be used up.
        (None, {"requests": Reading(10, 0, None), "tokens": Reading(100, 90, None)}, "requests"),
        (None, {"tokens": Reading(100, 3, None)}, "tokens"),
        # Or the fullest.
        (None, {}, "tokens"),
        # One that we do not know of is none of ours.
        ("images", {}, None),
    ],
)
def test_a_refusal_blames_one_limit(dimension, readings, blamed):
    log = Log(60.0)
    quota = Quota(
        [
            WindowGauge(name, 100, window=60.0, log=log, burst=100, index=i)
            for i, name in enumerate(("requests", "tokens"))
        ],
        log,
    )
    charge = Charge([1, 50])
    quota.charge(charge, 1)
    quota.refuse(charge, dimension, readings, 2.0, 2)
    assert {gauge.name for gauge in quota.gauges if gauge.ceiling.share < 1} == {blamed} - {None}


def test_after_a_refusal_nobody_goes_before_the_pause_is_over():
    quota = _quota()
    charge = _charged(quota, 1, 0)
    quota.refuse(charge, None, {}, 30.0, 1)
    quota.refuse(charge, None, {}, 1.0, 2)
    quota.settle(charge, [0, 0, 0, 0])
    assert quota.wait([0, 0, 0, 0], 2) == pytest.approx(29)
    assert quota.wait_behind([0, 0, 0, 0], [0, 0, 0, 0], 2) == pytest.approx(29)
    assert not quota.try_charge(Charge([0, 0, 0, 0]), 30.9)
    assert quota.wait([0, 0, 0, 0], 31) == 0


def test_a_refusal_of_a_call_that_nobody_knows_closes_the_gate():
    quota = _quota()
    quota.refuse(Charge(()), None, {}, 5.0, 1)
    assert quota.wait([0, 0, 0, 0], 1) == pytest.approx(5)


def test_headers_of_a_call_from_before_the_first_headers_are_not_compared():
    log = Log(60.0)
    quota = Quota([BucketGauge("tokens", 60, window=60.0, burst=10, margin=0.0)], log)
    early = Charge([1.0])
    quota.charge(early, 0)
    quota.sync({"tokens": Reading(60, 0, None)}, early, 1)
    assert quota.wait([9], 1) == 0
