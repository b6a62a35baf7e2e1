"""Invariants of the arithmetic of a quota alone, for windows and for buckets."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log, WindowGauge

LIMIT, WINDOW, BURST, PAD = 40.0, 10.0, 12.0, 0.5
RATE = LIMIT / WINDOW
CLOSE = 1e-6
AMOUNTS = st.integers(0, 40)
GAPS = st.floats(0, 6)
EVENTS = st.lists(st.tuples(GAPS, AMOUNTS), max_size=12)
KINDS = ["window", "bucket"]


def _quota(kind: str = "window", *, catch_up: float = 0.0) -> Quota:
    log = Log(WINDOW + PAD)
    if kind == "bucket":
        return Quota([BucketGauge("tokens", LIMIT, window=WINDOW, burst=BURST, margin=0.0)], log)
    gauge = WindowGauge("tokens", LIMIT, window=WINDOW, log=log, burst=BURST, index=0, catch_up=catch_up)
    return Quota([gauge], log)


def _charged(quota: Quota, amount: float, at: float) -> Charge:
    charge = Charge([amount])
    quota.charge(charge, at)
    return charge


@pytest.mark.parametrize("kind", KINDS)
@given(AMOUNTS, st.data(), st.lists(st.tuples(GAPS, st.integers(1, 20)), max_size=5), GAPS)
def test_reserving_and_settling_equals_having_charged_what_was_used(kind, reserved, data, between, last):
    """As long as the bucket was not full again meanwhile; what overflowed cannot be told from what was saved."""
    used = data.draw(st.integers(0, reserved))
    settled, charged = _quota(kind), _quota(kind)
    charge, now = _charged(settled, reserved, 0.0), 0.0
    _charged(charged, used, 0.0)
    for gap, amount in between:
        now += gap
        for quota in (settled, charged):
            quota.wait([0], now)
        assume(charged.gauges[0].level < BURST)
        for quota in (settled, charged):
            _charged(quota, amount, now)
    settled.wait([0], now)
    settled.settle(charge, [used])
    for probe in (0, 1, 12, 40):
        assert settled.wait([probe], now + last) == pytest.approx(charged.wait([probe], now + last), abs=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@given(EVENTS, st.floats(0, 30))
def test_waiting_as_long_as_told_is_enough(kind, charges, later):
    quota, now = _quota(kind), 0.0
    for gap, amount in charges:
        now += gap
        now += quota.wait([amount], now)
        assert quota.wait([amount], now) == 0
        _charged(quota, amount, now)
    assert quota.wait([40], now + later) <= WINDOW + PAD + 40 / RATE


@pytest.mark.parametrize("kind", KINDS)
@given(EVENTS, AMOUNTS)
def test_waiting_less_than_told_is_not_enough(kind, charges, amount):
    quota, now = _quota(kind), 0.0
    for gap, charged in charges:
        now += gap + quota.wait([charged], now + gap)
        _charged(quota, charged, now)
    told = quota.wait([amount], now)
    assume(told > CLOSE)
    assert quota.wait([amount], now + 0.99 * told) > 0


@pytest.mark.parametrize("catch_up", [0.0, 0.05, 1.0])
@given(EVENTS, st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_no_span_of_a_window_holds_more_than_the_limit(catch_up, charges, shares):
    quota, now = _quota(catch_up=catch_up), 0.0
    held: list[tuple[float, float]] = []
    for (gap, amount), share in zip(charges, shares, strict=False):
        now += gap + quota.wait([amount], now + gap)
        charge = _charged(quota, amount, now)
        used = int(amount * share)
        quota.settle(charge, [used])
        held.append((now, used))
    for end, _ in held:
        assert sum(used for at, used in held if end - WINDOW < at <= end) <= LIMIT + CLOSE


@pytest.mark.parametrize(("kind", "catch_up"), [("window", 0.0), ("window", 0.05), ("bucket", 0.0)])
@given(st.lists(st.tuples(GAPS, AMOUNTS), min_size=1, max_size=20))
def test_no_interval_holds_more_than_the_burst_the_largest_call_and_the_rate(kind, catch_up, charges):
    quota, now = _quota(kind, catch_up=catch_up), 0.0
    held: list[tuple[float, float]] = []
    for gap, amount in charges:
        now += gap + quota.wait([amount], now + gap)
        _charged(quota, amount, now)
        held.append((now, amount))
    largest = max(amount for _, amount in held)
    for since, _ in held:
        spent = sum(amount for at, amount in held if at >= since)
        assert spent <= BURST + largest + RATE * (1 + catch_up) * (now - since) + CLOSE


@pytest.mark.parametrize(("kind", "lost"), [("bucket", 0.0), ("window", 0.25)])
@given(st.lists(st.integers(1, 8), min_size=1, max_size=60))
def test_a_backlog_is_served_at_the_rate_and_nobody_waits_for_more_than_it_and_one_call(kind, lost, amounts):
    """A window loses the gaps that a call leaves that does not fit in, and its pad."""
    quota, now, backlog = _quota(kind), 0.0, 0.0
    for amount in amounts:
        now += quota.wait([amount], now)
        _charged(quota, amount, now)
        assert now <= backlog / (RATE * (1 - lost)) + max(amounts) / RATE + CLOSE
        backlog += amount


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.tuples(st.floats(-20, 20), AMOUNTS), min_size=1, max_size=12))
def test_a_jumping_clock_never_lets_more_through_than_its_furthest_reading(kind, events):
    quota, now, furthest, total = _quota(kind), 0.0, 0.0, 0
    quota.wait([0], now)
    for jump, amount in events:
        now += jump
        furthest = max(furthest, now)
        if quota.try_charge(Charge([amount]), now):
            total += amount
        elif quota.wait([amount], now) == 0:
            _charged(quota, amount, now)
            total += amount
    assert total <= BURST + 40 + RATE * furthest + CLOSE


@pytest.mark.parametrize("kind", KINDS)
@given(AMOUNTS, AMOUNTS, st.floats(0, 30))
def test_a_cancel_leaves_the_state_as_if_it_never_came(kind, before, cancelled, later):
    with_it, without = _quota(kind), _quota(kind)
    for quota in (with_it, without):
        _charged(quota, before, 0.0)
    charge = _charged(with_it, cancelled, 0.0)
    with_it.wait([0], later)
    with_it.settle(charge, [0])
    for probe in (0, 1, 12, 40):
        assert with_it.wait([probe], later) == pytest.approx(without.wait([probe], later), abs=CLOSE)


@given(st.lists(st.tuples(GAPS, st.integers(0, 20), st.booleans()), min_size=1, max_size=25))
def test_all_gauges_or_none(events):
    """A quick charge that one gauge refuses leaves the others as they were."""
    log = Log(WINDOW + PAD)
    tokens = WindowGauge("tokens", LIMIT, window=WINDOW, log=log, burst=BURST, index=0)
    bucket = BucketGauge("input_tokens", LIMIT / 2, window=WINDOW, burst=BURST / 2, margin=0.0)
    slots = SlotGauge("concurrency", 3)
    quota, now = Quota([tokens, bucket, slots], log), 0.0
    open_calls: list[Charge] = []
    for gap, amount, ends in events:
        now += gap
        quota.wait([0, 0, 0], now)
        before = [gauge.used for gauge in quota.gauges]
        charge = Charge([amount, amount / 2, 1])
        charged = quota.try_charge(charge, now)
        held = [amount, amount / 2, 1] if charged else [0, 0, 0]
        assert [gauge.used for gauge in quota.gauges] == pytest.approx(
            [b + h for b, h in zip(before, held, strict=True)]
        )
        if charged:
            open_calls.append(charge)
        if ends and open_calls:
            quota.settle(open_calls.pop(0), None)
        assert slots.used == len(open_calls)
