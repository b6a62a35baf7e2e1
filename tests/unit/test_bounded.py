"""A stated error: what is served while little is known, what labels change, and what the hits of a stream come to."""

from __future__ import annotations

import random

import pytest
from fakes import made

from dispatch_core import ConfigError, Consensus, Curve, Decision, ErrorBounded, Guarded, Match, Threshold
from dispatch_core.curve import STEPS

CURVE = Curve("made up", {"above-threshold": [0.5 * 0.75**step for step in range(STEPS)]})


def _policy(**settings) -> ErrorBounded:
    return ErrorBounded(base=Threshold(0.8), curve=CURVE, chance=random.Random(7).random, **settings)


def _ask(policy, number, score, *, wrong: bool) -> Decision:
    """One question whose nearest neighbour has this score and, if not served, an answer like its or another."""
    decision = policy.decide(f"question {number}", [Match(made("stored", payload=b"answer"), score)])
    if decision.hit is None:
        policy.learn(decision, made("asked", payload=b"another answer" if wrong else b"answer"))
    return decision


def _stream(policy, errors, *, questions=10_000, seed=0) -> tuple[int, int]:
    """Hits, and wrong ones, of a stream where a neighbour of a score is wrong with probability ``errors(score)``."""
    rng = random.Random(seed)
    hits = wrongs = 0
    for number in range(questions):
        score = 0.8 + 0.2 * rng.random()
        wrong = rng.random() < errors(score)
        if _ask(policy, number, score, wrong=wrong).hit is not None:
            hits += 1
            wrongs += wrong
    return hits, wrongs


def _calibrated(score: float) -> float:
    return 0.5 * 0.75 ** ((score - 0.8) * 100)


def test_nothing_is_served_before_enough_was_compared():
    policy = _policy()
    decision = _ask(policy, 0, 1.0, wrong=False)
    assert decision.hit is None
    assert decision.reason == "warming-up"
    assert decision.candidate is not None
    assert policy.warming_up
    assert policy.bounds()["above-threshold"].cut is None


def test_after_the_warm_up_hits_are_served_and_a_part_is_checked():
    policy = _policy(check=0.1)
    hits, _ = _stream(policy, _calibrated)
    assert not policy.warming_up
    bound = policy.bounds()["above-threshold"]
    assert bound.cut is not None
    assert bound.error <= 0.01
    reasons = [_ask(policy, number, 1.0, wrong=False).reason for number in range(1_000)]
    assert set(reasons) == {"above-threshold", "checking"}
    assert 50 < reasons.count("checking") < 150
    assert hits > 200


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "errors",
    [
        _calibrated,
        lambda score: min(1.0, 3 * _calibrated(score)),
        lambda score: 0.3 * _calibrated(score),
        lambda score: 0.0,
        lambda score: 1.0,
        lambda score: 0.03,
        lambda score: 0.5 if score < 0.95 else 0.001,
        lambda score: 0.002 if score < 0.92 else 0.02,
    ],
    ids=["as calibrated", "harder", "easier", "never wrong", "always wrong", "flat", "a step", "near ones worse"],
)
def test_the_error_of_the_hits_stays_below_what_was_asked_for(errors, seed):
    hits, wrong = _stream(_policy(), errors, seed=seed)
    assert wrong <= 0.01 * hits


def test_harder_questions_are_served_more_strictly():
    def cut(errors):
        policy = _policy()
        _stream(policy, errors)
        return policy.bounds()["above-threshold"].cut

    easy, hard = cut(lambda score: 0.2 * _calibrated(score)), cut(lambda score: min(1.0, 1.5 * _calibrated(score)))
    assert easy < hard


def test_a_stream_that_becomes_harder_is_served_no_more():
    policy = _policy(memory=500)
    _stream(policy, _calibrated)
    _stream(policy, lambda score: 0.2, seed=1)
    assert policy.bounds()["above-threshold"].cut is None
    assert _stream(policy, lambda score: 0.2, questions=500, seed=2) == (0, 0)


def test_a_wrong_hit_that_is_asked_for_often_is_found_out():
    policy = _policy(check=0.05)
    _stream(policy, _calibrated)
    candidates = [Match(made("stored", payload=b"answer"), 0.999)]
    reasons = [policy.decide("the same words each time", candidates).reason for _ in range(1_000)]
    assert 20 < reasons.count("checking") < 90


def test_what_guards_refuse_teaches_nothing():
    policy = ErrorBounded(base=Guarded(guards=[lambda asked, stored: "no"]))
    decision = _ask(policy, 0, 0.99, wrong=True)
    assert decision.reason == "no"
    assert policy.bounds() == {}


def test_each_path_learns_for_itself():
    policy = ErrorBounded(base=Consensus(guards=()))
    _ask(policy, 0, 0.99, wrong=True)
    crowd = [Match(made(f"{n}", payload=b"answer"), 0.85) for n in range(8)]
    policy.learn(policy.decide("asked", crowd), made("asked", payload=b"answer"))
    bounds = policy.bounds()
    assert (bounds["near-duplicate"].labels, bounds["near-duplicate"].wrong) == (1, 1)
    assert (bounds["consensus"].labels, bounds["consensus"].wrong) == (1, 0)


def test_what_was_learned_survives_a_restart():
    policy = _policy()
    _stream(policy, _calibrated)
    restored = _policy().learned(policy.to_json())
    assert restored.bounds() == policy.bounds()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"seen": [1], "labels": [1], "wrong": [1]}}'])
def test_what_was_not_learned_by_it_is_refused(text):
    with pytest.raises(ConfigError, match="to_json"):
        _policy().learned(text)


@pytest.mark.parametrize(
    "settings",
    [
        *({"max_error": error} for error in (0.0, 1.0, -0.1, float("nan"))),
        *({"check": share} for share in (0.0, 1.0, float("nan"))),
        *({"confidence": probability} for probability in (0.4, 1.0, float("nan"))),
        {"memory": 10},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ErrorBounded(**settings)


def test_a_curve_is_written_and_read():
    assert Curve.from_json(CURVE.to_json()) == CURVE
    assert CURVE.of("never heard of") == CURVE.of("above-threshold")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"encoder": "a", "rates": {}}', '{"encoder": "a", "rates": {"p": [0.1]}}', '{"encoder": "a"}'],
)
def test_what_is_no_curve_is_refused(text):
    with pytest.raises(ConfigError, match="curve"):
        Curve.from_json(text)
