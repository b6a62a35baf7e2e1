"""Eligibility as a setting: which rules are on, and what happens to the questions they catch."""

from __future__ import annotations

import pytest

from dispatch_core import ConfigError, Query
from dispatch_core.eligible import Eligibility, Rule

CLOCK = Query("What time is it?")
PARCEL = Query("Where is my parcel?")
PLAIN = Query("How do I change my password?")


def both(eligibility: Eligibility, query: Query) -> tuple[str | None, str | None]:
    return eligibility.why_not_at_all(query), eligibility.why_exact_only(query)


@pytest.mark.parametrize(("query", "reason"), [(CLOCK, "volatile"), (PARCEL, "personal")])
def test_a_question_of_a_kind_goes_past_the_cache_unless_told_otherwise(query, reason):
    assert both(Eligibility(), query) == (reason, None)
    assert both(Eligibility(**{reason: "exact"}), query) == (None, reason)
    assert both(Eligibility(**{reason: None}), query) == (None, None)
    assert both(Eligibility(), PLAIN) == (None, None)


def test_the_rules_hold_for_questions_that_are_matched_exactly_anyway():
    assert both(Eligibility(), Query(CLOCK.text, semantic=False)) == ("volatile", "exact-only")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query("  "), "empty-text"),
        (Query("a\nb"), "several-lines"),
        (Query("x" * 1001), "too-long"),
        (Query("Question: what is it"), "template"),
        (Query("\ud800"), "broken-unicode"),
    ],
)
def test_what_an_encoder_should_not_see_stays_exact(query, reason):
    assert both(Eligibility(), query) == (None, reason)


def test_a_rule_of_ones_own_has_its_own_reason():
    eligibility = Eligibility(rules=(Rule("secret", r"\bproject x\b"), Rule("stock", r"\bin stock\b", "exact")))
    assert both(eligibility, Query("What is Project X?")) == ("secret", None)
    assert both(eligibility, Query("Are they IN STOCK?")) == (None, "stock")
    assert both(eligibility, PLAIN) == (None, None)


def test_what_is_exempt_is_caught_by_no_rule():
    eligibility = Eligibility(rules=(Rule("parcels", "parcel", "exact"),), exempt=(r"where is my (parcel|order)",))
    assert both(eligibility, PARCEL) == (None, None)
    assert both(eligibility, CLOCK) == ("volatile", None)
    assert both(eligibility, Query("a parcel")) == (None, "parcels")


@pytest.mark.parametrize("name", ["volatile", "personal"])
def test_an_unknown_handling_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} questions is 'exact' or 'bypass'"):
        Eligibility(**{name: "never"})
    with pytest.raises(ConfigError, match="mine questions"):
        Rule("mine", "x", "never")


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="regular expression"):
        Rule("mine", "(")
    with pytest.raises(ConfigError, match="regular expression"):
        Eligibility(exempt=("[",))


def test_equal_settings_are_equal():
    assert Eligibility(rules=(Rule("a", "b"),)) == Eligibility(rules=(Rule("a", "b"),))
    assert hash(Eligibility()) == hash(Eligibility())
