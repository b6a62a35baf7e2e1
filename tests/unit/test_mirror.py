"""How much of a quota is left to others."""

from __future__ import annotations

import random

import pytest

from dispatch_core.limit.mirror import Mirror


def _after(surpluses: list[float]) -> float:
    mirror = Mirror()
    for number, surplus in enumerate(surpluses):
        mirror.note(surplus, 0.1 * number)
    return mirror.unseen


def test_nothing_seen_nothing_kept():
    assert Mirror().unseen == 0
    assert _after([0.0] * 100) == 0


def test_a_steady_surplus_is_kept_free():
    assert _after([500.0] * 200) == pytest.approx(500, rel=0.05)


def test_one_header_is_not_taken_for_more_than_it_says():
    """The first of all values says nothing about how much they vary."""
    assert _after([500.0]) <= 2 * 500


def test_what_varies_is_covered():
    rng = random.Random(1)
    seen = [rng.uniform(0, 600) for _ in range(2_000)]
    kept, mirror = [], Mirror()
    for number, surplus in enumerate(seen):
        kept.append(mirror.unseen >= surplus)
        mirror.note(surplus, 0.1 * number)
    assert sum(kept[20:]) >= 0.99 * len(kept[20:])


def test_the_more_it_varies_the_more_is_kept():
    steady, varied = _after([300.0] * 100), _after([0.0, 600.0] * 50)
    assert steady < varied


def test_what_is_over_is_forgotten():
    assert _after([500.0] * 100 + [0.0] * 300) < 10


def test_one_absurd_value_does_not_last():
    assert _after([0.0] * 100 + [10_000.0] + [0.0] * 300) < 10


def test_after_a_long_silence_the_past_hardly_counts():
    mirror = Mirror()
    for number in range(100):
        mirror.note(500.0, 0.1 * number)
    for number in range(5):
        mirror.note(0.0, 600.0 * (number + 1))
    assert mirror.unseen < 10
