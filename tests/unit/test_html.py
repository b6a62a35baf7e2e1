"""What notebooks show of our values: small tables, in which nothing is obeyed."""

from __future__ import annotations

import pytest

from dispatch_core import Explanation, GaugeStats, LimiterStats, Prices, Refusal, Stats, TokenLimiter, Verdict, _html
from dispatch_core.explain import Neighbour

HOSTILE = "<script>alert('x')</script>\x1b[2J\u202e\ud800 & \"quoted\"\r\n\tend"


def _shows_nothing_hostile(html: str) -> None:
    html.encode()
    assert not set(html) & set("\x1b\u202e\ud800\r\n\t")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in html
    assert "&amp; &quot;quoted&quot; end" in html


@pytest.mark.parametrize(
    "value",
    [
        Stats(prices=Prices(HOSTILE, 1, 1, currency=HOSTILE)),
        Explanation(HOSTILE, False, HOSTILE, None, [Neighbour(0.5, HOSTILE, HOSTILE, HOSTILE)]),
        LimiterStats(1, 0, 0, 0, 0, 1, 1, {HOSTILE: GaugeStats(60, 1, 1)}),
        Verdict(Refusal.THROTTLED, 1.0, HOSTILE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_value_holds_is_shown_as_text(value):
    _shows_nothing_hostile(value._repr_html_())


@pytest.mark.parametrize(
    "html", [_html.facts({HOSTILE: HOSTILE}), _html.listing([HOSTILE], [[HOSTILE]]), _html.caption(HOSTILE, HOSTILE)]
)
def test_names_and_values_and_captions_are_shown_as_text(html):
    _shows_nothing_hostile(html)


def test_texts_stand_left_and_numbers_right_with_their_thousands_apart():
    html = _html.listing(("name", "used"), [("tokens", 12_345), ("days", 1.25), ("none", float("inf"))])
    assert "<td style='text-align:left'>tokens</td><td>12,345</td>" in html
    assert "<td>1.2</td>" in html
    assert "<td>inf</td>" in html


def test_a_list_of_nothing_is_no_table():
    assert _html.listing(("name", "used"), []) == ""


def test_a_limiter_says_its_calls_and_its_quotas():
    limiter = TokenLimiter(rpm=60, tpm=10_000)
    with limiter.reserve(250, max_tokens=50):
        html = limiter.stats()._repr_html_()
    assert "admitted</th><td>1</td>" in html
    assert "open</th><td>1</td>" in html
    assert "tokens</td><td>300</td><td>10,000</td><td style='text-align:left'>100%</td>" in html


def test_a_refusal_says_what_the_provider_said_and_what_it_did_not():
    html = Verdict(Refusal.THROTTLED, 1.5, None)._repr_html_()
    assert "refusal</th><td>throttled</td>" in html
    assert "wait</th><td>1.5 s</td>" in html
    assert "exhausted</th><td>not said</td>" in html
    assert "0 s" in Verdict(Refusal.OVERLOADED, 0.0, None)._repr_html_()
