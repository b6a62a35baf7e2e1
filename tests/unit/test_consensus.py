"""Does anything near contradict an answer, do several agree? What votes, supporters, dissenters and guards change."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import made
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cache_quality.arms import ARMS
from benchmarks.cache_quality.plot import plot
from benchmarks.cache_quality.questions import Corpus, NoData, load
from benchmarks.cache_quality.report import Row
from benchmarks.cache_quality.stream import differences, stream
from dispatch_core import ConfigError, Consensus, Guarded, Match, Threshold
from dispatch_core.calibrate.choose import Figures
from dispatch_core.calibrate.replay import replay, same_payload
from dispatch_core.calibrate.vectors import Embedded
from dispatch_core.policy import Graded

CANDIDATES = st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc"), st.booleans()), max_size=8)
"""Score, answer, and whether a guard refuses."""

SHARES = st.floats(0.5, 1, exclude_min=True)
POLICIES = st.builds(
    lambda threshold, confidence, supporters, clarity: Consensus(
        threshold, confidence, supporters, clarity, guards=[_no]
    ),
    st.floats(-1, 1),
    st.none() | SHARES,
    st.integers(2, 5),
    SHARES,
)


def _no(asked: str, stored: str) -> str | None:
    return "refused" if stored.startswith("refused") else None


def _match(number, score, answer, refused=False) -> Match:
    text = f"{'refused' if refused else 'neighbour'} {number}"
    return Match(made(f"{number}", text=text, payload=answer.encode()), score)


def _matches(*candidates) -> list[Match]:
    matches = [_match(number, *candidate) for number, candidate in enumerate(candidates)]
    return sorted(matches, key=lambda match: -match.score)


@pytest.mark.parametrize(
    ("candidates", "hit", "reason"),
    [
        ([], None, "empty"),
        ([(0.91, "a")], None, "below-threshold"),
        # Near duplicates
        ([(0.92, "a")], 0, "near-duplicate"),
        ([(0.92, "a", True)], None, "refused"),
        ([(0.93, "a", True), (0.92, "b")], 1, "near-duplicate"),
        ([(0.95, "a"), (0.79, "b")], 0, "near-duplicate"),
        ([(0.95, "a"), *[(0.9, answer) for answer in "bcdefgh"]], 0, "near-duplicate"),
        ([(0.95, "a"), (0.9, "b"), (0.9, "b")], None, "contested"),
        ([(0.95, "a"), (0.9, "b", True), (0.9, "b", True)], 0, "near-duplicate"),
        ([(0.95, "a"), (0.9, "b"), (0.7, "b", True)], None, "contested"),
        ([(0.95, "a"), (0.9, "b"), (0.8, "b"), (0.9, "a")], None, "contested"),
        ([(0.95, "a"), (0.85, "b"), (0.8, "b"), (0.94, "a"), (0.94, "a")], 0, "near-duplicate"),
        # Consensus
        ([(0.8, "a")] * 4, 0, "consensus"),
        ([(0.8, "a")] * 3, None, "below-threshold"),
        ([(0.76, "a")] + [(0.2, "a")] * 3, 0, "consensus"),
        ([(0.74, "a")] * 8, None, "below-threshold"),
        ([(0.8, "a")] * 7 + [(0.7, "b")], 0, "consensus"),
        ([(0.8, "a")] * 4 + [(0.7, "b")], None, "below-threshold"),
        ([(0.8, "a", True)] + [(0.78, "a")] * 3, 1, "consensus"),
        ([(0.8, "a", True)] * 4, None, "refused"),
        ([(0.8, "b")] + [(0.79, "a")] * 7, None, "below-threshold"),
        ([(0.8, "Yes, of course.")] * 2 + [(0.8, "yes, of course")] * 2, 0, "consensus"),
    ],
)
def test_the_rule(candidates, hit, reason):
    matches = _matches(*candidates)
    decision = Consensus(guards=[_no]).decide("asked", matches)
    assert decision.reason == reason
    assert decision.nearest is (matches[0] if matches else None)
    assert decision.candidate is decision.hit
    expected = None if hit is None else f"{hit}"
    assert (None if decision.hit is None else decision.hit.entry.text.split()[-1]) == expected


@pytest.mark.parametrize(
    "excuse",
    [
        "I'm sorry, I don't have that information.",
        "Unfortunately I can’t help with this.",
        "The context does not mention it.",
        "抱歉，我无法回答这个问题。",
        "N/A",
    ],
)
def test_an_excuse_fits_every_question_and_is_no_consensus(excuse):
    crowd = _matches(*[(0.9, excuse)] * 8)
    assert Consensus(guards=()).decide("asked", crowd).reason == "non-answer"
    assert Consensus(guards=()).decide("asked", _matches((0.95, "a"), *[(0.94, excuse)] * 7)).hit is not None


@pytest.mark.parametrize("answer", ["card_arrival", "No.", "It is not open on Sunday.", "Free of charge."])
def test_a_short_answer_is_no_excuse(answer):
    assert Consensus(guards=()).decide("asked", _matches(*[(0.9, answer)] * 8)).reason == "consensus"


def test_what_the_same_answer_is_can_be_plugged_in():
    matches = _matches(*[(0.8, answer) for answer in ("4 days", "four days", "4 d", "IV days")])
    assert Consensus(guards=()).decide("asked", matches).hit is None
    assert Consensus(guards=(), same=lambda a, b: True).decide("asked", matches).hit is not None


def test_guards_are_asked_last_and_no_more_than_needed():
    asked = []
    policy = Consensus(guards=[lambda text, stored: asked.append(stored)])
    policy.decide("asked", _matches((0.8, "a"), (0.8, "b"), (0.8, "c")))
    assert asked == []
    policy.decide("asked", _matches((0.9, "a"), (0.8, "a"), (0.8, "a"), (0.8, "a")))
    assert asked == ["neighbour 0"]
    policy.decide("asked", _matches((0.99, "a"), (0.6, "b")))
    assert asked == ["neighbour 0"] * 2


def test_the_default_guards_refuse_another_number():
    stored = [_match(n, 0.99, "Eight euros.") for n in range(2)]
    texts = ["How much is parking for 2 days?", "What is the price of parking for 2 days?"]
    matches = [
        Match(made(text, text=text, payload=m.entry.payload), m.score) for text, m in zip(texts, stored, strict=True)
    ]
    assert Consensus().decide("How much is parking for 3 days?", matches).reason == "number"
    assert Consensus().decide("how much is parking for 2 days", matches).hit is matches[0]


@given(POLICIES, CANDIDATES, st.floats(-1, 1), st.floats(-1, 1))
def test_a_stricter_floor_never_serves_more(policy, candidates, one, other):
    loose, strict = sorted((one, other))
    matches = _matches(*candidates)
    if policy.grade("asked", matches, floor=strict).hit is not None:
        assert policy.grade("asked", matches, floor=loose).hit is not None


@given(CANDIDATES, st.floats(0.8, 1), st.floats(0.8, 1))
def test_a_candidate_is_served_up_to_its_level_and_no_further(candidates, floor, other):
    policy = Consensus(guards=[_no])
    matches = _matches(*candidates)
    graded = policy.grade("asked", matches, floor=floor)
    if graded.candidate is not None:
        assert graded.level >= floor - 1e-9
        again = policy.grade("asked", matches, floor=other)
        if other < graded.level - 1e-9:
            assert again.candidate is not None
        if other > graded.level + 1e-9:
            assert again.candidate is None


@given(POLICIES, CANDIDATES, SHARES, SHARES)
def test_asking_for_more_clarity_never_serves_more(policy, candidates, one, other):
    loose, strict = (Consensus(policy.threshold, 1.0, 5, share, guards=[_no]) for share in sorted((one, other)))
    matches = _matches(*candidates)
    if strict.decide("asked", matches).hit is not None:
        assert loose.decide("asked", matches).hit is not None


@given(
    POLICIES,
    st.lists(st.tuples(st.sampled_from([0.75, 0.8, 0.96]), st.sampled_from("ab"), st.booleans())),
    st.randoms(),
)
def test_the_order_of_equals_does_not_matter(policy, candidates, random):
    matches = _matches(*candidates[:8])
    shuffled = random.sample(matches, len(matches))
    assert policy.decide("asked", shuffled) == policy.decide("asked", matches)


@given(POLICIES, CANDIDATES)
def test_what_a_guard_refuses_is_never_served(policy, candidates):
    hit = policy.decide("asked", _matches(*candidates)).hit
    assert hit is None or not hit.entry.text.startswith("refused")


@given(CANDIDATES, st.floats(-1, 1), st.booleans())
def test_one_more_dissenter_never_makes_an_answer_served(candidates, score, refused):
    policy = Consensus(guards=[_no])
    before = policy.decide("asked", _matches(*candidates)).hit
    after = policy.decide("asked", _matches(*candidates, (score, "d", refused))).hit
    if before is None:
        assert after is None or after.entry.payload == b"d"


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"confidence": 0.5},
        {"confidence": 75},
        {"confidence": float("nan")},
        {"clarity": 0.5},
        {"clarity": float("nan")},
        {"supporters": 1},
        {"neighbours": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Consensus(**settings)


def test_scores_that_are_no_numbers_serve_nothing():
    assert Consensus().decide("asked", _matches(*[(float("nan"), "a")] * 4)).hit is None


@pytest.mark.parametrize("policy", [Threshold(), Guarded(), Consensus()])
def test_every_policy_tells_how_strict_it_might_be(policy):
    assert isinstance(policy, Graded)
    match = Match(made("a", text="asked"), 0.85)
    assert policy.decide("asked", [match]).hit is None
    graded = policy.grade("asked", [match], floor=0.8)
    assert graded.candidate is match
    assert graded.level == 0.85


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
    "policy",
    [
        Threshold(0.7),
        Guarded(0.7, guards=()),
        Consensus(0.7, 0.51, 2, 0.51, guards=()),
        Consensus(0.5, None, 3, 0.6, guards=()),
    ],
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
