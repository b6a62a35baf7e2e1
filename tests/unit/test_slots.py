"""Calls under way at once, and how their number follows the provider's pace."""

from __future__ import annotations

import math

import pytest

from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log


def _slots(limit: float) -> tuple[SlotGauge, Quota]:
    gauge = SlotGauge("concurrency", limit)
    return gauge, Quota([gauge], Log(60.0))


def _begun(quota: Quota, at: float, calls: int = 1) -> list[Charge]:
    charges = [Charge([1.0]) for _ in range(calls)]
    for charge in charges:
        quota.charge(charge, at)
    return charges


def _room(quota: Quota, now: float) -> int:
    """How many calls go at once; they stay under way."""
    room = 0
    while quota.try_charge(Charge([1.0]), now):
        room += 1
    return room


def _busy(gauge: SlotGauge, quota: Quota, seconds: list[float]) -> None:
    """Every slot is in use, and answers come at this pace."""
    open_calls = _begun(quota, 0.0, int(gauge.limit))
    for pace in seconds:
        gauge.pace("first_token", pace)
    for charge in open_calls:
        quota.settle(charge, None)


@pytest.mark.parametrize("limit", [1, 3, 2.9])
def test_no_more_calls_than_slots_are_under_way(limit):
    _, quota = _slots(limit)
    assert _room(quota, 0) == math.floor(limit)
    assert quota.wait([1], 1e9) == math.inf


@pytest.mark.parametrize("usage", [None, [0.0], [1.0], [1_000_000.0]])
def test_a_slot_is_free_when_its_call_is_over_whatever_it_cost(usage):
    gauge, quota = _slots(2)
    first, _ = _begun(quota, 0, 2)
    quota.settle(first, usage)
    assert gauge.used == 1
    assert quota.wait([1], 0) == 0


def test_a_slot_is_freed_once():
    gauge, quota = _slots(2)
    first, _ = _begun(quota, 0, 2)
    for _ in range(3):
        quota.settle(first, None)
    assert gauge.used == 1


def test_an_even_pace_keeps_all_slots():
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3] * 200)
    assert gauge.allowed == 20


def test_slower_first_tokens_mean_fewer_calls_at_once():
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3] * 50)
    allowed = []
    for seconds in (1.0, 3.0, 10.0):
        _busy(gauge, quota, [seconds] * 5)
        allowed.append(gauge.allowed)
    assert allowed == sorted(allowed, reverse=True)
    assert allowed[-1] < 15
    assert _room(quota, 0) == math.floor(gauge.allowed)


def test_a_little_noise_is_no_slowness():
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3, 0.36, 0.27, 0.33, 0.25] * 40)
    assert gauge.allowed == 20


def test_when_the_pace_is_good_again_the_slots_come_back():
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3] * 50)
    _busy(gauge, quota, [10.0] * 10)
    slow = gauge.allowed
    _busy(gauge, quota, [0.3] * 200)
    assert slow < gauge.allowed == 20


def test_a_pace_that_lasts_becomes_the_usual_one():
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3] * 50)
    _busy(gauge, quota, [2.0] * 2_000)
    assert gauge.allowed == 20


def test_first_tokens_and_seconds_per_token_are_not_mixed():
    gauge, quota = _slots(20)
    _begun(quota, 0, 20)
    for _ in range(100):
        gauge.pace("first_token", 0.02)
        gauge.pace("per_token", 5.0)
    assert gauge.allowed == 20


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_nonsense_seconds_are_ignored(seconds):
    gauge, quota = _slots(20)
    _busy(gauge, quota, [0.3] * 50)
    _busy(gauge, quota, [seconds] * 50)
    _busy(gauge, quota, [0.3] * 5)
    assert gauge.allowed == 20


@pytest.mark.parametrize("paces", [[1e-9, 1e9] * 100, [0.01] * 50 + [1e12] * 500, [1e300] * 20 + [1e-300] * 20])
def test_there_is_always_one_slot_and_never_one_too_many(paces):
    gauge, quota = _slots(5)
    for pace in paces:
        _busy(gauge, quota, [pace])
        assert 1 <= gauge.allowed <= 5
    assert 1 <= _room(quota, 0) <= 5


def test_a_refusal_takes_slots():
    gauge, quota = _slots(20)
    first, *_ = _begun(quota, 1, 20)
    quota.refuse(first, None, {}, 0.0, 2)
    assert gauge.allowed < 20


def test_the_refusals_of_calls_that_were_under_way_together_count_as_one():
    gauge, quota = _slots(20)
    calls = _begun(quota, 1, 20)
    quota.refuse(calls[0], None, {}, 0.0, 2)
    after_one = gauge.allowed
    for call in calls[1:]:
        quota.refuse(call, None, {}, 0.0, 3)
    assert gauge.allowed == after_one
    quota.refuse(_begun(quota, 4)[0], None, {}, 0.0, 5)
    assert gauge.allowed < after_one


def test_refusals_never_take_the_last_slot():
    gauge, quota = _slots(20)
    for second in range(1, 500, 2):
        [call] = _begun(quota, second)
        quota.refuse(call, None, {}, 0.0, second + 1)
        quota.settle(call, [0.0])
    assert gauge.allowed == 1
    assert _room(quota, 1_000) == 1
