"""The replay of a log decides like a real cache, with texts asked again too; and what its memory grows with."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from fakes import made
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cache_quality.stream import differences
from dispatch_core import ConfigError, HashingEmbedder
from dispatch_core.calibrate import FAMILIES, Log, Pairs, Source, calibrate
from dispatch_core.calibrate import near as neighbours
from dispatch_core.calibrate.answers import Answers
from dispatch_core.calibrate.families import quickened
from dispatch_core.calibrate.near import best, near
from dispatch_core.calibrate.replay import numbered, replay, stream
from dispatch_core.calibrate.vectors import Embedded, embedded
from dispatch_core.consensus import Consensus
from dispatch_core.policy import Guarded, Threshold

POLICIES = [
    Threshold(0.7),
    Guarded(0.7, guards=()),
    Consensus(0.7, 0.51, 2, 0.51, guards=()),
    Consensus(0.5, None, 3, 0.6, guards=()),
]


def _vectors(size: int, dims: int, seed: int = 1, spread: float = 0.7):
    """Rows in a dozen of clusters, and the cluster of each."""
    random = np.random.default_rng(seed)
    centre = random.integers(0, 12, size)
    rows = random.normal(size=(12, dims))[centre] + spread * random.normal(size=(size, dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), centre


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("remembered", [5, 128])
def test_a_log_with_questions_asked_again_is_replayed_as_a_real_cache_answers_it(monkeypatch, policy, remembered):
    monkeypatch.setattr(neighbours, "REMEMBERED", remembered)
    vectors, centre = _vectors(120, 16)
    asked = np.random.default_rng(2).integers(0, 120, 500).tolist()
    text_of, texts = numbered([f"question {number}" for number in asked])
    rows = [int(text.split()[1]) for text in texts]
    known = Embedded(vectors[rows], np.array(rows) % 9 != 0)
    answers = [f"answer {centre[number]}" for number in asked]
    log = stream([texts[text] for text in text_of], answers, known)
    right = Answers(answers).by_text()
    outcome = replay(log, policy, right)
    assert outcome.exact.sum() > 100
    assert outcome.semantic.sum() > 20
    assert differences(log, policy, outcome, 500) == []
    assert [bool(wrong) for wrong in outcome.wrong] == [
        served >= 0 and answers[served] != answers[number] for number, served in enumerate(outcome.served)
    ]


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.data())
def test_neighbours_are_the_nearest_before_and_for_texts_asked_again_those_after(seed, size, data):
    vectors, _ = _vectors(size, 4, seed)
    again = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    found = near(vectors, again)
    for text in range(size):
        rows, scores, cutoff = found.of(text)
        others = [row for row in range(size) if row < text or (again[text] and row > text)]
        every = np.clip(vectors[others] @ vectors[text], -1, 1)
        assert sorted(rows) == others
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx(np.sort(every)[::-1].tolist(), abs=1e-6)
        assert cutoff == -np.inf


@given(st.lists(st.floats(-1, 1, width=32), min_size=1), st.integers(1, 20))
def test_the_best_come_first(scores, limit):
    rows = best(np.array(scores, dtype=np.float32), limit)
    assert np.array(scores)[rows].tolist() == sorted(scores, reverse=True)[:limit]


def test_memory_grows_with_the_questions_and_not_with_their_square():
    size = 4_000
    vectors, _ = _vectors(size, 8)
    everything = np.ones(size, dtype=np.bool_)
    tracemalloc.start()
    try:
        near(vectors, everything)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size * size * vectors.itemsize / 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_quickened_policy_decides_the_same(name):
    random = np.random.default_rng(3)
    questions = [f"How much is parking for {random.integers(1, 4)} days in zone {zone}?" for zone in "abcd" * 20]
    answers = [random.choice(["Eight euros.", "eight euros", "Nine euros."]) for _ in questions]
    _, texts = numbered(questions)
    log = stream(questions, answers, embedded(texts, HashingEmbedder()))
    known = Answers(answers)
    for setting in (FAMILIES[name].sweep[0], FAMILIES[name].default, FAMILIES[name].sweep[-1]):
        policy = FAMILIES[name].make(setting)
        slow, quick = (replay(log, each, known.by_text()) for each in (policy, quickened(policy, known.equivalence)))
        assert slow.served.tolist() == quick.served.tolist()


def test_the_code_of_a_setting_is_the_policy():
    for family in FAMILIES.values():
        for setting in (*family.sweep, family.default):
            kind, parameter = re.fullmatch(r"(\w+)\((\w+=[\d.]+)\)", family.code(setting)).groups()
            assert repr(family.make(setting)).startswith(f"{kind}(")
            assert f"{parameter}," in repr(family.make(setting))


def test_answers_are_the_same_by_text_or_by_cosine_with_the_same_numbers():
    texts = ["It takes 4 days.", "it takes 4 days", "You wait 4 days.", "You wait 5 days.", "Ask us."]
    answers = Answers(texts)
    assert answers.number_of == [0, 0, 1, 2, 3]
    vectors = np.array([[1, 0], [0.96, 0.28], [0.96, 0.28], [0, 1]], dtype=np.float32)
    by_text, by_cosine = answers.by_text(), answers.by_cosine(vectors, 0.9)
    assert [by_text(0, other) for other in range(5)] == [True, True, False, False, False]
    assert [by_cosine(0, other) for other in range(5)] == [True, True, True, False, False]
    assert [by_cosine(other, 0) for other in range(5)] == [True, True, True, False, False]
    same = answers.equivalence
    asked = [replace(made(""), id=str(number)) for number in range(3)]
    assert same(asked[0], asked[1])
    assert not same(asked[0], asked[2])


def test_only_what_the_cache_compares_by_meaning_is_embedded():
    embedder = HashingEmbedder()
    found = embedded(["Who?", "two\nlines", "x" * 2_000, "Why?"], embedder)
    assert found.readable.tolist() == [True, False, False, True]
    assert found.reasons == {"several-lines": 1, "too-long": 1}
    assert found.vectors[[0, 3]].tolist() == embedder.embed(["Who?", "Why?"]).tolist()
    assert not found.vectors[1:3].any()


SOURCE = Source("made up", ("a", "b", "same"), 4)
PAIRS = Pairs(
    SOURCE,
    ["how do I pay by card", "how do I pay by card", "where is my parcel", "a\nb"],
    ["how do I pay by card now", "how do I pay by cash", "when do you open", "a b"],
    [True, False, False, True],
)


def test_pair_by_pair_only_the_two_questions_of_a_row_are_compared():
    report = calibrate(PAIRS, HashingEmbedder(), pairwise=True)
    assert {trial.family.title for trial in report.trials} == {"Threshold", "Guarded"}
    loosest = [trial for trial in report.trials if trial.family.title == "Threshold"][-1]
    assert loosest.hit.tolist() == [True, True, False, False]
    assert loosest.wrong.tolist() == [False, True, False, False]
    assert report.asked == 4


def test_pairs_are_a_log_unless_told_otherwise():
    report = calibrate(PAIRS, HashingEmbedder())
    assert report.asked == report.questions == 7
    assert {trial.family.title for trial in report.trials} == {"Threshold", "Guarded", "Consensus", "ErrorBounded"}


def test_settings_that_make_no_sense_are_refused():
    log = Log(SOURCE, ["Who?"], ["Me."])
    for wrong in ({"max_error": 0.0}, {"max_error": float("nan")}, {"same_cosine": 2.0}, {"pairwise": True}):
        with pytest.raises(ConfigError):
            calibrate(log, HashingEmbedder(), **wrong)
