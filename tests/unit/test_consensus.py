"""Do the neighbours agree on an answer? What votes, witnesses, dissenters and guards change, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import made
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.plot import plot
from benchmarks.cache_quality.questions import Corpus, NoData, load
from benchmarks.cache_quality.report import Row
from benchmarks.cache_quality.stream import differences, stream
from dispatch_core import ConfigError, Match
from dispatch_core.calibrate.choose import Figures
from dispatch_core.calibrate.replay import replay, same_payload
from dispatch_core.calibrate.vectors import Embedded
from dispatch_core.policy import Consensus, Guarded, Threshold

CANDIDATES = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc"), st.booleans()), max_size=8)
"""Score, answer, and whether a guard refuses."""

POLICIES = st.builds(
    lambda low, high, agreement, lone: Consensus(min(low, high), agreement, max(low, high) if lone else None),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.floats(0.5, 1, exclude_min=True),
    st.booleans(),
)


def _no(asked: str, stored: str) -> str | None:
    return "refused" if stored.startswith("refused") else None


def _match(number, score, answer, refused=False) -> Match:
    text = f"{'refused' if refused else 'neighbour'} {number}"
    return Match(made(f"{number}", text=text, payload=answer.encode()), score)


def _matches(*candidates) -> list[Match]:
    matches = [_match(number, *candidate) for number, candidate in enumerate(candidates)]
    return sorted(matches, key=lambda match: -match.score)


def _with(policy: Consensus, **changes) -> Consensus:
    kept = {name: getattr(policy, name) for name in ("threshold", "agreement", "alone")}
    return Consensus(**{**kept, **changes}, guards=[_no])


def _answer(policy: Consensus, candidates) -> bytes | None:
    hit = _with(policy).decide("asked", candidates).hit
    return None if hit is None else hit.entry.payload


@pytest.mark.parametrize(
    ("candidates", "hit", "reason"),
    [
        ([], None, "empty"),
        ([(0.69, "a"), (0.69, "a")], None, "below-threshold"),
        ([(0.8, "a"), (0.75, "a")], 0, "consensus"),
        ([(0.8, "a"), (0.65, "a")], None, "no-consensus"),
        ([(0.8, "a")], None, "no-consensus"),
        ([(0.96, "a")], 0, "near-duplicate"),
        ([(0.96, "a"), (0.85, "b")], 0, "near-duplicate"),
        ([(0.96, "a"), (0.87, "b")], None, "no-consensus"),
        ([(0.8, "a"), (0.8, "a"), (0.5, "b")], 0, "consensus"),
        ([(0.8, "a"), (0.8, "a"), (0.7, "b")], None, "no-consensus"),
        ([(0.8, "b"), *[(0.79, "a")] * 7], None, "no-consensus"),
        ([(0.6, "b"), (0.79, "a"), (0.78, "a"), *[(0.75, "a")] * 5], 1, "consensus"),
        ([(0.8, "a", True), (0.75, "a")], 1, "consensus"),
        ([(0.8, "a", True), (0.75, "a", True)], None, "refused"),
        ([(0.96, "a", True)], None, "refused"),
        ([(0.8, "Yes, of course."), (0.75, "yes, of course")], 0, "consensus"),
    ],
)
def test_the_rule(candidates, hit, reason):
    matches = _matches(*candidates)
    decision = Consensus(guards=[_no]).decide("asked", matches)
    assert decision.reason == reason
    assert decision.nearest is (matches[0] if matches else None)
    expected = None if hit is None else f"{hit}"
    assert (None if decision.hit is None else decision.hit.entry.text.split()[-1]) == expected


def test_what_the_same_answer_is_can_be_plugged_in():
    matches = _matches((0.8, "4 days"), (0.8, "four days"))
    assert Consensus(guards=()).decide("asked", matches).hit is None
    assert Consensus(guards=(), same=lambda a, b: True).decide("asked", matches).hit is not None


def test_guards_are_asked_last_and_no_more_than_needed():
    asked = []
    policy = Consensus(guards=[lambda text, stored: asked.append(stored)])
    policy.decide("asked", _matches((0.8, "a"), (0.8, "b"), (0.8, "c")))
    assert asked == []
    policy.decide("asked", _matches((0.9, "a"), (0.8, "a"), (0.8, "a")))
    assert asked == ["neighbour 0"]


def test_the_default_guards_refuse_another_number():
    stored = [_match(n, 0.99, "Eight euros.") for n in range(2)]
    texts = ["How much is parking for 2 days?", "What is the price of parking for 2 days?"]
    matches = [
        Match(made(text, text=text, payload=m.entry.payload), m.score) for text, m in zip(texts, stored, strict=True)
    ]
    assert Consensus().decide("How much is parking for 3 days?", matches).reason == "number"
    assert Consensus().decide("how much is parking for 2 days", matches).hit is matches[0]


@given(POLICIES, CANDIDATES, st.floats(-1, 1))
def test_a_stricter_threshold_never_serves_more(policy, candidates, threshold):
    assume(policy.alone is None or threshold <= policy.alone)
    loose, strict = sorted((policy.threshold, threshold))
    matches = _matches(*candidates)
    served = _with(policy, threshold=strict).decide("asked", matches).hit
    if served is not None:
        assert served.score >= strict
        assert _with(policy, threshold=loose).decide("asked", matches).hit is not None


@given(POLICIES, CANDIDATES, st.floats(0.5, 1, exclude_min=True))
def test_asking_for_more_agreement_never_serves_more(policy, candidates, agreement):
    loose, strict = sorted((policy.agreement, agreement))
    matches = _matches(*candidates)
    if _with(policy, agreement=strict).decide("asked", matches).hit is not None:
        assert _with(policy, agreement=loose).decide("asked", matches).hit is not None


@given(
    POLICIES,
    st.lists(st.tuples(st.sampled_from([0.75, 0.8, 0.96]), st.sampled_from("ab"), st.booleans())),
    st.randoms(),
)
def test_the_order_of_equals_does_not_matter(policy, candidates, random):
    matches = _matches(*candidates[:8])
    shuffled = random.sample(matches, len(matches))
    assert _with(policy).decide("asked", shuffled) == _with(policy).decide("asked", matches)


@given(POLICIES, CANDIDATES)
def test_what_a_guard_refuses_is_never_served(policy, candidates):
    hit = _with(policy).decide("asked", _matches(*candidates)).hit
    assert hit is None or not hit.entry.text.startswith("refused")


@given(POLICIES, CANDIDATES, st.tuples(st.floats(-1, 1), st.sampled_from("abc"), st.booleans()))
def test_one_more_dissenter_never_makes_an_answer_served(policy, candidates, dissenter):
    before = _answer(policy, _matches(*candidates))
    after = _answer(policy, _matches(*candidates, dissenter))
    assert after in (before, None) or after == dissenter[1].encode()


@given(POLICIES, CANDIDATES, st.floats(-1, 1), st.booleans())
def test_one_more_supporter_never_turns_a_hit_into_a_miss(policy, candidates, score, refused):
    before = _answer(policy, _matches(*candidates))
    if before is not None:
        assert _answer(policy, _matches(*candidates, (score, before.decode(), refused))) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"agreement": 0.5},
        {"agreement": 90},
        {"agreement": float("nan")},
        {"alone": 0.6},
        {"alone": 1.1},
        {"alone": float("nan")},
        {"neighbours": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Consensus(**settings)


def test_scores_that_are_no_numbers_serve_nothing():
    assert Consensus().decide("asked", _matches((float("nan"), "a"), (float("nan"), "a"))).hit is None


# The benchmark that measures it


def test_one_plot_has_a_panel_of_curves_for_each_corpus(tmp_path):
    rows = [
        Row(name, arm, setting, Figures(900, 300, 3)) for name in "ab" for arm in ARMS for setting in ARMS[arm].sweep
    ]
    path = tmp_path / "curves.png"
    assert plot(rows, [("a", "One"), ("b", "Another")], path) == [str(path)]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_without_data_it_says_where_data_is(tmp_path):
    for folder in (None, tmp_path, tmp_path / "none"):
        with pytest.raises(NoData, match="clinc/oos-eval"):
            load(folder)
    (tmp_path / "data_full.json").write_text("[]")
    with pytest.raises(NoData, match="another form"):
        load(tmp_path)


def test_pairs_become_answers(tmp_path):
    rows = ["question1\tquestion2\tis_duplicate", "a?\tb?\t1", "b?\tc?\t1", "c?\td?\t0", "d?\t\t0"]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows))
    [corpus] = load(tmp_path)
    assert sorted(corpus.texts) == ["a?", "b?", "c?", "d?"]
    answers = dict(zip(corpus.texts, corpus.answers, strict=True))
    assert answers["a?"] == answers["b?"] == answers["c?"] != answers["d?"]


@pytest.mark.parametrize(
    "policy", [Threshold(0.7), Guarded(0.7, guards=()), Consensus(0.4, 0.6, 0.8, ()), Consensus(0.1, 0.51, None, ())]
)
def test_the_benchmark_decides_like_a_real_cache(policy):
    random = np.random.default_rng(1)
    answers = random.integers(0, 12, 300)
    vectors = random.normal(size=(12, 16))[answers] + 0.7 * random.normal(size=(300, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    corpus = Corpus("made", "made up", [f"question {n}" for n in range(300)], [f"answer {n}" for n in answers])
    questions = stream(corpus, Embedded(vectors, np.arange(300) % 9 != 0), seed=1, limit=250)
    outcome = replay(questions, policy, same_payload(questions.entries))
    assert 10 < outcome.semantic.sum() < 240
    assert differences(questions, policy, outcome, 250) == []
