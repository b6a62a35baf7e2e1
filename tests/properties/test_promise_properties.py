"""Calls in quick succession are charged to a promise: never does it let in whom the gauges would have sent away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.day import DayGauge
from dispatch_core.limit.quota import Charge, Gauge, Quota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log, WindowGauge

LIMIT, WINDOW, BURST, PAD = 400.0, 10.0, 120.0, 0.5
CLOSE = 1e-6
KINDS = ["window", "catching up", "bucket", "slots", "day"]
# Most gaps are shorter than a grain, 0.15 s here.
GAPS = st.one_of(st.just(0.0), st.floats(0, 0.03), st.floats(0, 0.03), st.floats(0, 4))
EVENTS = st.lists(st.tuples(GAPS, st.integers(0, 40), st.sampled_from([0.0, 0.0, 3.0, 40.0])), max_size=60)
ENDS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.5, 1.0, 1.5])), min_size=60, max_size=60)


def _quota(kind: str) -> Quota:
    log = Log(WINDOW + PAD)
    catch_up = 0.1 if kind == "catching up" else 0.0
    gauges: list[Gauge] = [
        WindowGauge("a", LIMIT, window=WINDOW, log=log, burst=BURST, index=0, catch_up=catch_up, estimated=True)
    ]
    if kind == "bucket":
        bucket = BucketGauge("b", LIMIT, window=WINDOW, burst=BURST, margin=0.0, estimated=True)
        log.gauges += (bucket,)
        gauges.append(bucket)
    if kind == "slots":
        gauges.append(SlotGauge("s", 5))
    if kind == "day":
        gauges.append(DayGauge("d", 700.0, index=1))
    return Quota(gauges, log)


def _amounts(quota: Quota, amount: float) -> Sequence[float]:
    return [1.0 if isinstance(gauge, SlotGauge) else amount for gauge in quota.gauges]


def _levels(quota: Quota) -> list[float]:
    return [gauge.level for gauge in quota.gauges if isinstance(gauge, WindowGauge | BucketGauge)]


def _asked(quota: Quota, charge: Charge, now: float) -> Charge:
    """The same charge where every gauge is asked every time."""
    twin = Charge(charge.amounts, charge.noise)
    assert quota.wait(twin.amounts, now, twin.noise) <= CLOSE, "a promise let in whom the gauges would send away"
    quota.charge(twin, now)
    return twin


@pytest.mark.parametrize("kind", KINDS)
@given(EVENTS, ENDS)
def test_whoever_enters_by_a_promise_fits(kind, events, ends):
    quota, twin, now = _quota(kind), _quota(kind), 0.0
    pairs: list[tuple[Charge, Charge]] = []
    together: Counter[int] = Counter()
    for (gap, amount, noise), (which, share) in zip(events, ends, strict=False):
        now += gap
        charge = Charge(_amounts(twin, amount), noise)
        if quota.try_charge(charge, now):
            pairs.append((charge, _asked(twin, charge, now)))
            together[charge.promise] += amount
        if which < len(pairs):
            ended, also = pairs.pop(which)
            used = [held * share for held in ended.amounts]
            assert quota.settle(ended, used)
            assert twin.settle(also, used)
    for both in (quota, twin):
        both.wait([0.0] * len(both.gauges), now)
    assert [gauge.used for gauge in quota.gauges][:1] == pytest.approx([twin.gauges[0].used], abs=CLOSE)
    del together[0]
    lost = max(together.values(), default=0)
    for level, exact in zip(_levels(quota), _levels(twin), strict=True):
        assert exact - lost - CLOSE <= level <= exact + CLOSE, "no more is lost than one promise was good for"


@given(st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 30)), min_size=1, max_size=80))
def test_all_that_was_promised_is_absorbed_before_anybody_looks(events):
    quota, now, total = _quota("bucket"), 0.0, 0.0
    for gap, amount in events:
        now += gap
        if quota.try_charge(Charge([amount, amount]), now):
            total += amount
        assert quota.gauges[0].used == total
    assert sum(charge.amounts[0] for charge in quota.record.charges) == total


def test_most_calls_in_quick_succession_ask_no_gauge():
    quota = _quota("window")
    charges = [Charge([1.0]) for _ in range(50)]
    assert all(quota.try_charge(charge, number * 1e-3) for number, charge in enumerate(charges))
    assert sum(charge.promise > 0 for charge in charges) == len(charges) - 1


def test_a_call_that_used_more_than_its_estimate_ends_the_promise():
    quota = _quota("window")
    first, second = Charge([10.0]), Charge([10.0])
    assert quota.try_charge(first, 0.0)
    assert quota.try_charge(second, 0.0)
    quota.settle(second, [90.0])
    assert not quota.try_charge(Charge([21.0]), 0.0)
    assert quota.try_charge(Charge([20.0]), 0.0)


def test_a_slot_whose_call_is_over_is_free_although_no_gauge_was_asked():
    quota = _quota("slots")
    for number in range(200):
        charge = Charge([0.5, 1.0])
        assert quota.try_charge(charge, number * 1e-3)
        quota.settle(charge, None)
    assert quota.gauges[1].used == 0


def test_a_promise_is_good_for_so_much_doubt_and_no_more():
    quota = _quota("window")
    sure, doubtful = Charge([1.0], 1.0), Charge([1.0], 1_000.0)
    assert quota.try_charge(Charge([1.0], 1.0), 0.0)
    assert quota.try_charge(sure, 0.0)
    assert quota.try_charge(doubtful, 0.0)
    assert sure.promise
    assert not doubtful.promise
    assert not quota.try_charge(Charge([250.0]), 0.0)
