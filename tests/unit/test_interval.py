"""Clopper–Pearson: the known values, the definition it must meet, and the ends of the scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import ConfigError
from dispatch_core.interval import at_most, clopper_pearson, upper_bound

COUNTS = st.integers(1, 1_000_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
CONFIDENCES = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


@pytest.mark.parametrize(
    ("events", "trials", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.3085), (10, 10, 0.6915, 1), (5, 10, 0.1871, 0.8129), (20, 2_000, 0.00612, 0.01540)],
)
def test_the_interval_is_that_of_clopper_and_pearson(events, trials, low, high):
    assert clopper_pearson(events, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [(0, 0, 1), (0, 1, 0.95), (0, 59, 0.0495), (0, 299, 0.009969), (1, 2, 0.9747), (3, 3, 1), (10, 1_000, 0.016890)],
)
def test_the_one_sided_bound(events, trials, bound):
    assert upper_bound(events, trials) == pytest.approx(bound, abs=5e-5)


@given(st.integers(1, 60), st.data(), st.floats(0, 1))
def test_the_tail_is_the_sum_of_the_binomial_terms(trials, data, share):
    events = data.draw(st.integers(0, trials))
    terms = (math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(events + 1))
    assert at_most(events, trials, share) == pytest.approx(sum(terms), abs=1e-12)


@given(COUNTS, CONFIDENCES)
def test_at_the_bound_so_few_events_are_just_as_rare_as_asked_for(counts, confidence):
    events, trials = counts
    bound = upper_bound(events, trials, confidence)
    assert events / trials <= bound <= 1
    if events < trials:
        assert at_most(events, trials, bound) == pytest.approx(1 - confidence, rel=1e-6)


@given(COUNTS, CONFIDENCES)
def test_each_end_of_the_interval_is_a_one_sided_bound(counts, confidence):
    events, trials = counts
    low, high = clopper_pearson(events, trials, confidence)
    assert low <= events / trials <= high
    assert high == upper_bound(events, trials, (1 + confidence) / 2)
    assert (low, high) == pytest.approx(
        [1 - end for end in clopper_pearson(trials - events, trials, confidence)[::-1]]
    )


@given(COUNTS)
def test_more_events_raise_the_bound_and_more_trials_lower_it(counts):
    events, trials = counts
    bound = upper_bound(events, trials)
    assert upper_bound(events, trials + 1) < bound or bound == 1
    assert upper_bound(min(events + 1, trials), trials) >= bound


@pytest.mark.parametrize(("events", "trials", "confidence"), [(2, 1, 0.9), (-1, 1, 0.9), (0, 1, 1.0), (0, 1, 0.0)])
def test_counts_that_cannot_be_are_refused(events, trials, confidence):
    with pytest.raises(ConfigError):
        upper_bound(events, trials, confidence)
