"""Which setting is recommended, and does the promise hold? On made-up outcomes whose true error is known."""

from __future__ import annotations

import numpy as np
import pytest

from dispatch_core.calibrate import FAMILIES, Figures, Trial, Verdict
from dispatch_core.calibrate.choose import choose, halves, hits_needed, recommend
from dispatch_core.interval import at_most, clopper_pearson, upper_bound

FAMILY = FAMILIES["threshold"]


def _trials(errors, rates, asked=4_000, seed=0, again=1):
    """Settings with these true errors per hit and hit rates; each text is asked ``again`` times, with one outcome."""
    random = np.random.default_rng(seed)
    texts = np.repeat(np.arange(asked // again), again)
    # As in a cache, a looser setting serves what a stricter one serves, and the same mistakes.
    hard, bad = random.random(asked // again), random.random(asked // again)
    return [
        Trial(FAMILY, setting, (hard < rate)[texts], (bad < error)[texts] & (hard < rate)[texts], texts)
        for setting, error, rate in zip(FAMILY.sweep, errors, rates, strict=False)
    ]


def _recommended(trials, max_error, seed=0):
    return recommend(trials, max_error, halves(trials[0].texts, seed))


def test_of_the_settings_that_are_good_enough_the_one_with_most_hits_is_recommended():
    found = _recommended(_trials([0.0, 0.001, 0.001, 0.05], [0.1, 0.5, 0.7, 0.9]), 0.01)
    assert found.verdict is Verdict.RECOMMENDED
    assert found.trial.setting == FAMILY.sweep[2]
    assert found.tested.bound <= 0.01


@pytest.mark.parametrize("again", [1, 10])
def test_the_promise_is_broken_no_more_often_than_the_confidence_allows(again):
    """All of many settings are a little worse than what is asked for, so every recommendation is a wrong one."""
    errors, rates = np.linspace(0.0505, 0.06, 6), np.linspace(0.2, 0.9, 6)
    runs = [_recommended(_trials(errors, rates, 2_000, seed, again), 0.05, seed) for seed in range(100)]
    broken = sum(found.verdict is Verdict.RECOMMENDED for found in runs)
    assert at_most(broken - 1, 100, 0.05) < 0.999


def test_figures_of_the_half_that_chose_flatter_and_those_of_the_other_half_do_not():
    """Many settings of the same true error and few hits: some look good by chance."""
    error = 0.03
    seen, held_out = Figures(0, 0, 0), Figures(0, 0, 0)
    for seed in range(40):
        random = np.random.default_rng(seed)
        hits = random.random((17, 4_000)) < 0.05
        texts = np.arange(4_000)
        trials = [
            Trial(FAMILY, setting, hit, hit & (random.random(4_000) < error), texts)
            for setting, hit in zip(FAMILY.sweep, hits, strict=True)
        ]
        choice = choose(FAMILY, trials, 0.02, halves(texts, seed))
        seen += choice.trial.all if choice.trial else Figures(0, 0, 0)
        held_out += choice.held_out
    assert upper_bound(seen.wrong, seen.hits, 0.999) < error
    low, high = clopper_pearson(held_out.wrong, held_out.hits, 0.999)
    assert low < error < high


def test_a_half_that_finds_nothing_good_enough_serves_nothing_on_the_other():
    trials = _trials([0.3], [0.5])
    choice = choose(FAMILY, trials, 0.01, halves(trials[0].texts))
    assert choice.trial is None
    assert choice.held_out == Figures(4_000, 0, 0)


@pytest.mark.parametrize(
    ("errors", "rates", "verdict"),
    [
        ([0.2, 0.3], [0.4, 0.8], Verdict.NOT_GOOD_ENOUGH),
        ([0.0, 0.3], [0.001, 0.8], Verdict.NOT_GOOD_ENOUGH),
        ([0.0, 0.3], [0.05, 0.8], Verdict.TOO_FEW_HITS),
        ([0.0], [0.02], Verdict.TOO_FEW_HITS),
        ([0.0], [0.0], Verdict.TOO_FEW_HITS),
    ],
)
def test_without_a_recommendation_it_is_said_whether_more_questions_could_help(errors, rates, verdict):
    found = _recommended(_trials(errors, rates), 0.01)
    assert found.verdict is verdict
    assert found.tested is None


def test_as_many_hits_as_needed_are_needed():
    needed = hits_needed(0.01)
    for hits, verdict in ((needed, Verdict.RECOMMENDED), (needed - 2, Verdict.TOO_FEW_HITS)):
        assert _recommended(_trials([0.0], [1.0], hits), 0.01).verdict is verdict


def test_askings_of_one_text_stay_in_one_half():
    texts = np.random.default_rng(1).integers(0, 500, 3_000)
    half = halves(texts, seed=3)
    assert set(texts[half]) & set(texts[~half]) == set()
    assert 0.4 < half.mean() < 0.6
    assert (half == halves(texts, seed=3)).all()
    assert (half != halves(texts, seed=4)).any()


def test_the_same_text_served_again_is_no_further_evidence():
    once, often = _trials([0.02], [0.5], 1_000)[0].all, _trials([0.02], [0.5], 10_000, again=10)[0].all
    assert (often.hits, often.wrong) == (10 * once.hits, 10 * once.wrong)
    assert often.interval == once.interval
    assert once.interval == clopper_pearson(once.wrong, once.hits)
    assert Figures(9, 0, 0).interval == (0.0, 1.0)
