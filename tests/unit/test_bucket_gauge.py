"""The mirror of a server whose level refills continuously, as tables of instants."""

from __future__ import annotations

import pytest

from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge, Quota
from dispatch_core.limit.window import Log


def _quota(*, limit: float = 60.0, burst: float = 10.0, margin: float = 0.0) -> Quota:
    """From its first headers on, a quota notes with every call what to compare its headers with."""
    quota = Quota([BucketGauge("tokens", limit, window=60.0, burst=burst, margin=margin)], Log(60.0))
    quota.sync({}, Charge([0.0]), 0.0)
    return quota


def _charged(quota: Quota, amount: float, at: float) -> Charge:
    charge = Charge([amount])
    quota.charge(charge, at)
    return charge


def _answered(quota: Quota, charge: Charge, limit: float | None, remaining: float | None, at: float) -> None:
    quota.sync({"tokens": Reading(limit, remaining, None)}, charge, at)
    quota.settle(charge, None)


def _level(quota: Quota, now: float) -> float:
    quota.wait([0], now)
    [gauge] = quota.gauges
    return gauge.full - gauge.used


def _agreed() -> Quota:
    """A hundred units a second, mirrored from a full server for so long that both agree."""
    quota = _quota(limit=6_000.0, burst=6_000.0)
    for second in range(-100, 0):
        _answered(quota, _charged(quota, 0, second), 6_000, 6_000, second)
    assert _level(quota, 0) == pytest.approx(6_000)
    return quota


# Without headers


@pytest.mark.parametrize(
    ("charges", "now", "amount", "wait"),
    [
        ([], 0, 10, 0),
        ([(0, 10)], 0, 1, 1),
        ([(0, 10)], 4, 4, 0),
        ([(0, 10)], 4, 5, 1),
        # What is larger than the level can ever be goes from a full one, as debt.
        ([(0, 1)], 0, 30, 1),
        ([(0, 30)], 0, 1, 21),
        ([(0, 10)], 500, 10, 0),
        ([(0, 10), (500, 10)], 500, 1, 1),
    ],
)
def test_without_headers_no_more_than_the_burst_goes_at_once(charges, now, amount, wait):
    quota = _quota()
    for at, charged in charges:
        _charged(quota, charged, at)
    assert quota.wait([amount], now) == pytest.approx(wait)


def test_settling_gives_back_what_was_not_used_once():
    quota = _quota()
    charge = _charged(quota, 10, 0)
    for real in (4, 0, None):
        quota.settle(charge, None if real is None else [real])
    assert _level(quota, 0) == 6


def test_settling_above_the_estimate_is_paid_later():
    quota = _quota()
    quota.settle(_charged(quota, 10, 0), [30])
    assert quota.wait([1], 0) == pytest.approx(21)


def test_a_clock_that_jumps_back_mints_nothing():
    quota = _quota()
    _charged(quota, 10, 100)
    for now in (50, 0, 99):
        assert quota.wait([5], now) == pytest.approx(5)
        assert not quota.try_charge(Charge([5]), now)
    assert quota.wait([5], 105) == 0


# What the provider tells


@pytest.mark.parametrize(("limit", "remaining"), [(None, 60.0), (60.0, None), (None, None), (1e9, 1e9), (1.0, 0.0)])
def test_a_header_that_says_too_little_or_means_another_quota_changes_nothing(limit, remaining):
    quota = _quota()
    _answered(quota, _charged(quota, 10, 0), limit, remaining, 0)
    assert quota.wait([1], 0) == pytest.approx(1)


def test_a_server_that_is_full_is_believed_in_the_end():
    quota = _quota()
    for second in range(0, 6_000, 60):
        _answered(quota, _charged(quota, 1, second), 60, 59, second)
    assert _level(quota, 6_000) == pytest.approx(60, abs=2)


def test_a_first_header_is_no_reason_to_stop():
    quota = _quota()
    _answered(quota, _charged(quota, 1, 0), 60, 59, 0)
    assert quota.wait([1], 1) == 0


def test_the_level_never_exceeds_what_the_server_can_hold():
    quota = _quota(margin=5.0)
    for second in range(500):
        _answered(quota, _charged(quota, 0, second), 60, 60, second)
        assert _level(quota, second) <= 60


def test_what_others_took_is_missing_at_once():
    quota = _agreed()
    _answered(quota, _charged(quota, 100, 0), 6_000, 5_000, 0)
    assert 4_500 <= _level(quota, 0) <= 5_000


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_correction_is_not_counted_twice_for_calls_in_flight(order):
    quota = _agreed()
    charges = [_charged(quota, 100, 0) for _ in range(3)]
    # Others had taken a thousand before all of them; in whichever order the answers come.
    for index in order:
        _answered(quota, charges[index], 6_000, 5_000 - 100 * (index + 1), 0)
        assert _level(quota, 0) <= 4_700
    assert _level(quota, 0) >= 4_000


def test_what_was_charged_after_the_call_is_taken_off_what_the_server_said():
    quota = _agreed()
    first = _charged(quota, 100, 0)
    _charged(quota, 2_000, 0)
    _answered(quota, first, 6_000, 5_900, 0)
    assert _level(quota, 0) == pytest.approx(3_900, abs=60)


def test_a_refund_that_the_server_does_not_grant_is_taken_back():
    quota = _agreed()
    quota.settle(_charged(quota, 3_000, 0), [0])
    _answered(quota, _charged(quota, 0, 0), 6_000, 3_000, 0)
    assert _level(quota, 0) <= 3_000


def test_after_a_refusal_the_level_begins_again_from_nothing():
    quota = _quota(burst=50)
    quota.refuse(_charged(quota, 1, 10), "tokens", {}, 5.0, 10)
    assert quota.wait([0], 10) == pytest.approx(5)
    assert quota.wait([20], 15) == pytest.approx(20, rel=0.05)


class _Server:
    """An honest provider: a level that refills by one a second, and says what is left when a request arrives."""

    def __init__(self, level: float) -> None:
        self.level, self.at, self.refused = level, 0.0, 0

    def arrive(self, amount: float, now: float) -> float:
        self.level, self.at = min(60.0, self.level + now - self.at), now
        if self.level < amount:
            self.refused += 1
        else:
            self.level -= amount
        return self.level


@pytest.mark.parametrize("foreign", [0.0, 0.3])
def test_an_honest_server_is_used_up_and_never_overdrawn(foreign):
    quota, server = _quota(margin=2.0), _Server(60.0)
    flying: list[tuple[float, Charge, float]] = []
    sent, now = 0, 0.0
    while now < 1_200:
        while flying and flying[0][0] <= now:
            _, charge, remaining = flying.pop(0)
            _answered(quota, charge, 60, remaining, now)
        while quota.wait([2.0], now) == 0:
            flying.append((now + 3.0, _charged(quota, 2.0, now), server.arrive(2.0, now)))
            sent += 2
        server.arrive(0.25 * foreign, now)
        now += 0.25
    assert server.refused <= 0.01 * sent
    assert sent >= 0.85 * (1 - foreign) * 1_200
