"""What one dispatcher counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import pytest

from dispatch_core import Stats, Usage
from dispatch_core.telemetry import Tally


def test_a_snapshot_holds_what_was_counted_so_far():
    tally = Tally()
    tally.count("exact_hits", saved=Usage(10, 5))
    tally.count("semantic_hits", saved=Usage(1, 1))
    tally.count("misses")
    before = tally.snapshot()
    tally.count("stored", spent=Usage(7, 8))
    assert before == Stats(exact_hits=1, semantic_hits=1, misses=1, saved=Usage(11, 6))
    assert tally.snapshot().spent == Usage(7, 8)
    with pytest.raises(FrozenInstanceError):
        before.misses = 3


@pytest.mark.parametrize(
    ("stats", "rate"), [(Stats(), 0.0), (Stats(misses=3), 0.0), (Stats(1, 2, 1), 0.75), (Stats(semantic_hits=2), 1.0)]
)
def test_the_hit_rate_is_hits_per_lookup(stats, rate):
    assert stats.hit_rate == rate
    assert stats.lookups == stats.hits + stats.misses


def test_stats_are_readable_as_a_line_and_as_a_table():
    stats = Stats(exact_hits=1, semantic_hits=2, misses=1, failures=4, saved=Usage(30, 12))
    assert str(stats) == "4 lookups: 1 exact + 2 semantic hits (75%), 42 tokens saved, 4 failures"
    table = stats._repr_html_()
    assert table.startswith("<table>")
    assert table.count("<tr>") == table.count("</tr>") == 8
    assert "<td>75.0%</td>" in table
    assert "<td>42</td>" in table


def test_counting_in_many_threads_loses_nothing():
    tally = Tally()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: tally.count("exact_hits", saved=Usage(1, 2)), range(2_000)))
    assert tally.snapshot() == Stats(exact_hits=2_000, saved=Usage(2_000, 4_000))
