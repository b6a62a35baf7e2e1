"""Is this neighbour the same question? Decisions over candidates, and questions that are matched exactly only."""

from __future__ import annotations

import pytest
from fakes import made
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import ConfigError, Fit, Guarded, Match, Query, Threshold
from dispatch_core.eligible import MAX_CHARS, why_exact_only, why_unreadable

SCORES = st.lists(st.floats(-1, 1), max_size=6).map(lambda scores: sorted(scores, reverse=True))
THRESHOLDS = st.floats(-1, 1)


def _candidates(*scores: float) -> list[Match]:
    return [Match(made(f"{n}", text=f"neighbour {n}"), score) for n, score in enumerate(scores)]


def _refuses(*numbers: int):
    return lambda asked, stored: f"no-{stored[-1]}" if int(stored[-1]) in numbers else None


@pytest.mark.parametrize("policy", [Threshold(0.9), Guarded(0.9, guards=())])
@pytest.mark.parametrize(
    ("scores", "hit", "reason"),
    [
        ((), None, "empty"),
        ((0.9,), 0, None),
        ((0.89999,), None, "below-threshold"),
        ((1.0, 0.95), 0, None),
        ((-1.0,), None, "below-threshold"),
    ],
)
def test_the_nearest_is_served_if_it_reaches_the_threshold(policy, scores, hit, reason):
    candidates = _candidates(*scores)
    decision = policy.decide("asked", candidates)
    assert decision.hit is (None if hit is None else candidates[hit])
    assert decision.nearest is (candidates[0] if candidates else None)
    assert decision.reason == reason or decision.hit is not None


@pytest.mark.parametrize(
    ("refused", "hit", "reason"),
    [((), 0, "guarded"), ((0,), 1, "guarded"), ((0, 1), None, "no-0"), ((1,), 0, "guarded")],
)
def test_the_nearest_that_no_guard_refuses_is_served(refused, hit, reason):
    candidates = _candidates(0.99, 0.95, 0.5)
    decision = Guarded(0.9, guards=[_refuses(*refused)]).decide("asked", candidates)
    assert decision.hit is (None if hit is None else candidates[hit])
    assert decision.reason == reason
    assert decision.nearest is candidates[0]


def test_the_first_guard_that_refuses_gives_the_reason():
    guards = [lambda asked, stored: None, lambda asked, stored: "first", lambda asked, stored: "second"]
    assert Guarded(0.9, guards=guards).decide("asked", _candidates(1.0)).reason == "first"


def test_guards_see_what_was_asked_and_what_is_stored():
    seen = []
    Guarded(0.9, guards=[lambda asked, stored: seen.append((asked, stored))]).decide("asked", _candidates(1.0))
    assert seen == [("asked", "neighbour 0")]


def test_guards_are_not_asked_about_what_is_too_far():
    def never(asked: str, stored: str) -> str | None:
        raise AssertionError

    assert Guarded(0.9, guards=[never]).decide("asked", _candidates(0.8)).hit is None


def test_the_default_guards_refuse_another_number():
    [neighbour] = _candidates(0.999)
    stored = Match(made("a", text="How many days are in 3 weeks?"), 0.999)
    assert Guarded().decide("How many days are in 5 weeks?", [stored]).hit is None
    assert Guarded().decide("neighbour 0", [neighbour]).hit is neighbour


@given(SCORES, THRESHOLDS, THRESHOLDS, st.sets(st.integers(0, 5)))
def test_a_stricter_threshold_never_serves_more(scores, one, other, refused):
    loose, strict = sorted((one, other))
    for make in (Threshold, lambda t: Guarded(t, guards=[_refuses(*refused)])):
        candidates = _candidates(*scores)
        served = make(strict).decide("asked", candidates).hit
        if served is not None:
            assert make(loose).decide("asked", candidates).hit is served
            assert served.score >= strict


@pytest.mark.parametrize("policy", [Threshold, Guarded])
@pytest.mark.parametrize("threshold", [-1.1, 1.01, 92, float("nan"), float("inf")])
def test_a_threshold_that_is_no_cosine_is_refused(policy, threshold):
    with pytest.raises(ConfigError, match="threshold"):
        policy(threshold)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query("a question"), None),
        (Query("a question", semantic=False), "exact-only"),
        (Query(""), "empty-text"),
        (Query(" \n"), "empty-text"),
        (Query("a" * MAX_CHARS), None),
        (Query("a" * (MAX_CHARS + 1)), "too-long"),
        (Query("lone \ud800"), "broken-unicode"),
    ],
)
def test_some_questions_are_matched_exactly_only(query, reason):
    assert why_exact_only(query) == reason


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (Fit(256), None),
        (Fit(257), "beyond-window"),
        (Fit(12, 3), None),
        (Fit(12, 4), "unknown-words"),
        (Fit(3, 1), "unknown-words"),
        (Fit(2, 0), None),
        (Fit(0, 0), None),
    ],
)
def test_a_text_the_encoder_cannot_read_is_matched_exactly_only(fit, reason):
    assert why_unreadable(fit, 256) == reason
