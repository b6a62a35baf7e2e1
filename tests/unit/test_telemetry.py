"""What one dispatcher counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import pytest

from dispatch_core import ConfigError, Dispatcher, MemoryStore, Prices, Query, SemanticCache, Stats, Usage
from dispatch_core.telemetry import Tally

PRICES = Prices("a model, list of 2025-01", input=0.15, output=0.60)


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


def test_what_was_saved_is_told_in_money_with_the_name_of_the_prices():
    stats = Stats(exact_hits=1, saved=Usage(1_000_000, 500_000), prices=PRICES)
    assert stats.money_saved == pytest.approx(0.45)
    assert str(stats).endswith("money saved 0.45 USD (a model, list of 2025-01)")
    assert "<td>0.45 USD (a model, list of 2025-01)</td>" in stats._repr_html_()


def test_without_prices_there_is_no_word_of_money():
    stats = Stats(exact_hits=1, saved=Usage(1_000_000, 500_000))
    assert stats.money_saved is None
    assert "money" not in str(stats) + stats._repr_html_()


def test_large_sums_are_readable_and_in_their_currency():
    stats = Stats(saved=Usage(10**10, 0), prices=Prices("dear", 1_000, 0, currency="EUR"))
    assert "10,000,000.00 EUR (dear)" in str(stats)


@pytest.mark.parametrize("amount", [-0.01, float("nan"), float("inf"), -float("inf")])
def test_prices_that_are_none_are_refused(amount):
    for settings in ({"input": amount, "output": 1}, {"input": 1, "output": amount}):
        with pytest.raises(ConfigError, match="per million tokens"):
            Prices("a model", **settings)


def test_a_dispatcher_counts_in_the_prices_it_was_given():
    dispatcher = Dispatcher(SemanticCache(None, MemoryStore()), prices=PRICES)
    dispatcher.finish(dispatcher.begin(Query("a")), b"answer", Usage(2_000_000, 0))
    assert dispatcher.stats().money_saved == 0
    dispatcher.begin(Query("a"))
    assert dispatcher.stats().money_saved == pytest.approx(0.30)
    dispatcher.discard(dispatcher.begin(Query("a")))
    assert dispatcher.stats().money_saved == pytest.approx(0.30)


def test_what_was_checked_and_taken_back_is_told():
    stats = Stats(checked=40, checked_wrong=2, rejected=3)
    share, low, high = stats.wrong_hits
    assert (share, 0 < low < share < high < 1) == (0.05, True)
    line, table = str(stats), stats._repr_html_()
    assert f"wrong hits 5.0% [{low:.1%}, {high:.1%}] of 40 checked" in line
    assert f"5.0% [{low:.1%}, {high:.1%}] of 40 checked" in table
    assert "<th style='text-align:left'>rejected hits</th><td>3</td>" in table
    assert Stats().wrong_hits is None
    assert "wrong" not in str(Stats())
    assert "rejected" not in Stats()._repr_html_()


def test_hostile_names_of_prices_are_escaped():
    table = Stats(prices=Prices("<script>x</script>", 1, 1, currency="<b>"))._repr_html_()
    assert "<script>" not in table
    assert "<b>" not in table
    assert "&lt;script&gt;" in table
