"""What a provider really grants of a configured limit, learned from refusals and headers."""

from __future__ import annotations

import itertools
import math

import pytest

from dispatch_core.limit.ceiling import Ceiling


def _at(ceiling: Ceiling, now: float) -> float:
    ceiling.refresh(now)
    return ceiling.share


def _refused(ceiling: Ceiling, now: float, granted: float | None = None) -> float:
    """Refuse a call that was sent a second ago; the share after it."""
    ceiling.refused(now - 1, now, granted)
    return ceiling.share


def test_a_limit_is_believed_until_it_is_refused():
    ceiling = Ceiling()
    assert _at(ceiling, 0) == _at(ceiling, 1e6) == 1


def test_a_refusal_cuts():
    assert 0 < _refused(Ceiling(), 10) < 1


def test_of_calls_that_were_under_way_together_only_the_first_refusal_counts():
    ceiling = Ceiling()
    ceiling.refused(0.0, 10.0, None)
    cut = ceiling.share
    for sent in (0.0, 5.0, 10.0):
        ceiling.refused(sent, 10.5, None)
    assert ceiling.share == cut
    ceiling.refused(10.1, 11.0, None)
    assert ceiling.share < cut


def test_refusals_that_go_on_cut_deeper_than_a_single_one():
    ceiling = Ceiling()
    shares = [1.0, *(_refused(ceiling, 10.0 + 2 * number) for number in range(6))]
    cuts = [after / before for before, after in itertools.pairwise(shares)]
    assert min(cuts[1:]) < cuts[0]


def test_what_was_measured_to_get_through_says_how_deep_to_cut():
    shares = {}
    for granted in (0.5, 0.9, None):
        ceiling = Ceiling()
        for now in range(10, 40, 2):
            _refused(ceiling, now, granted)
        shares[granted] = ceiling.share
    assert shares[0.5] < shares[0.9] <= shares[None]


@pytest.mark.parametrize("granted", [0.0, 1e-9, 5.0, 1e9])
def test_a_strange_measurement_neither_closes_nor_raises(granted):
    ceiling = Ceiling()
    for now in range(10, 40, 2):
        before = ceiling.share
        assert 0 < _refused(ceiling, now, granted) <= before + 1e-2


def test_refusals_without_end_leave_a_little():
    ceiling = Ceiling()
    for now in range(10, 20_000, 2):
        _refused(ceiling, now, 0.0)
    assert ceiling.share > 0
    assert _at(ceiling, 1e9) == 1


def test_the_share_recovers_by_the_same_amount_in_the_same_time():
    ceiling = Ceiling()
    for now in range(10, 60, 2):
        _refused(ceiling, now, 0.7)
    start = ceiling.share
    middle = _at(ceiling, 68)
    end = _at(ceiling, 78)
    assert end > middle > start
    assert end - middle == pytest.approx(middle - start, rel=0.01)


def test_looking_often_recovers_no_faster():
    often, seldom = Ceiling(), Ceiling()
    for ceiling in (often, seldom):
        for now in range(10, 40, 2):
            _refused(ceiling, now)
    for tenth in range(400, 500):
        _at(often, tenth / 10)
    assert _at(often, 50) == pytest.approx(_at(seldom, 50))


def _seconds_to_return(ceiling: Ceiling, now: float, share: float) -> float:
    since = now
    while _at(ceiling, now) < share:
        now += 1.0
    return now - since


def test_a_share_that_failed_again_is_approached_more_slowly_each_time():
    ceiling, now, times = Ceiling(), 1_000.0, []
    for _ in range(4):
        _refused(ceiling, now)
        times.append(_seconds_to_return(ceiling, now, 0.9999))
        now += times[-1] + 10
    assert times == sorted(times)
    assert times[-1] > 2 * times[0]


def test_a_clock_that_jumps_back_mints_nothing():
    ceiling = Ceiling()
    for now in range(10, 40, 2):
        _refused(ceiling, now)
    share = _at(ceiling, 100)
    assert _at(ceiling, 0) == share
    assert _at(ceiling, 100) == share


# What headers tell


@pytest.mark.parametrize(
    ("limit", "share", "about_a_minute"),
    [
        (6_000, 1, True),
        (3_000, 0.5, True),
        (1_200, 0.2, True),
        # Of ten seconds, and of one.
        (1_000, 1, False),
        (500, 0.5, False),
        (100, 1, False),
        (50, 0.5, False),
        # A little more than was configured is the same limit, rounded.
        (6_100, 1, True),
    ],
)
def test_a_header_names_the_limit_of_a_minute_or_of_a_slice_of_it(limit, share, about_a_minute):
    ceiling = Ceiling()
    assert ceiling.tell(limit, 6_000) is about_a_minute
    assert ceiling.share == pytest.approx(share)


@pytest.mark.parametrize(
    ("window", "limit", "share"), [(5, 500, 1), (3, 300, 1), (5, 250, 0.5), (5, 6_000, 1), (5, 90, 0.9)]
)
def test_a_header_may_name_the_limit_of_the_window_that_was_configured(window, limit, share):
    ceiling = Ceiling()
    assert ceiling.tell(limit, 6_000, window) is (limit != 90)
    assert ceiling.share == pytest.approx(share)


@pytest.mark.parametrize("limit", [0.0, 1e-9, 1.0, 7_000, 1e6, 1e300, math.inf, math.nan])
def test_an_absurd_limit_is_ignored(limit):
    ceiling = Ceiling()
    assert not ceiling.tell(limit, 6_000)
    assert (ceiling.share, ceiling.slice) == (1.0, math.inf)


def test_a_header_never_raises_what_was_configured():
    ceiling = Ceiling()
    for limit in (6_300, 6_200, 6_100):
        ceiling.tell(limit, 6_000)
    assert _at(ceiling, 1e6) == 1


def test_the_share_recovers_no_further_than_the_header_says():
    ceiling = Ceiling()
    ceiling.tell(3_000, 6_000)
    _refused(ceiling, 10)
    assert _at(ceiling, 1e9) == pytest.approx(0.5)


def test_a_limit_that_is_raised_again_comes_back():
    ceiling = Ceiling()
    ceiling.tell(3_000, 6_000)
    _at(ceiling, 10)
    ceiling.tell(6_000, 6_000)
    assert _at(ceiling, 1e5) == 1


def test_the_shortest_slice_is_remembered():
    ceiling = Ceiling()
    for limit in (6_000, 100, 1_000):
        ceiling.tell(limit, 6_000)
    assert ceiling.slice == 1
