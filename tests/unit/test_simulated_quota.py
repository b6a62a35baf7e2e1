"""The simulated provider's quota: tables of instants, and one property that no window may break."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_core.errors import ConfigError
from dispatch_core.simulate import Admission, Quota, Rejection, Style
from dispatch_core.simulate.quota import STYLES
from dispatch_core.simulate.reply import duration, limit_headers, refusal

WINDOWED: tuple[Style, ...] = ("sliding", "bucket", "fixed")
"""Those that count everything over one window, however long; the others have seconds in them."""

every_style = pytest.mark.parametrize("style", WINDOWED)


def admitted(quota: Quota, tokens: int, now: float) -> Admission:
    verdict = quota.admit(tokens, now)
    assert isinstance(verdict, Admission), verdict
    return verdict


def rejected(quota: Quota, tokens: int, now: float) -> Rejection:
    verdict = quota.admit(tokens, now)
    assert isinstance(verdict, Rejection), verdict
    return verdict


# Each row: instant, tokens, and None when admitted or the seconds after which to come back. tpm=600, 60 s.
TABLES: dict[Style, list[tuple[float, int, float | None]]] = {
    "sliding": [
        (0.0, 200, None),
        (10.0, 400, None),
        (20.0, 1, 40.0),
        (20.0, 200, 40.0),
        (20.0, 201, 50.0),
        (59.999999, 1, 0.000001),
        (60.0, 200, None),
        (60.0, 1, 10.0),
        (70.0, 400, None),
        (70.0, 1, 50.0),
    ],
    "bucket": [
        (0.0, 600, None),
        (0.0, 1, 0.1),
        (1.0, 10, None),
        (1.0, 600, 60.0),
        (31.0, 301, 0.1),
        (31.0, 300, None),
        (31.05, 1, 0.05),
        (1000.0, 600, None),
        (1000.0, 600, 60.0),
    ],
    "fixed": [
        (0.0, 600, None),
        (0.0, 1, 60.0),
        (59.5, 600, 0.5),
        (60.0, 600, None),
        (119.999999, 1, 0.000001),
        (120.0, 600, None),
        (1000.0, 600, None),
        (1000.0, 600, 20.0),
    ],
}


@every_style
def test_admits_and_rejects_at_the_instants_of_the_table(style: Style) -> None:
    quota = Quota(tpm=600, style=style)
    for now, tokens, wait in TABLES[style]:
        verdict = quota.admit(tokens, now)
        found = verdict.retry_after if isinstance(verdict, Rejection) else None
        assert found == wait, (now, tokens)


@every_style
@pytest.mark.parametrize(("rpm", "tpm", "window"), [(7, 1001, 60.0), (600, 60_000, 1.0), (13, 977, 17.3)])
def test_a_request_that_comes_exactly_after_retry_after_is_admitted(
    style: Style, rpm: int, tpm: int, window: float
) -> None:
    start = 12_345.678901
    quota = Quota(rpm=rpm, tpm=tpm, window=window, style=style, start=start)
    now, most = start, tpm * window / 60
    for step in range(300):
        tokens = 1 + int(step * 37 % most)
        verdict = quota.admit(tokens, now)
        if isinstance(verdict, Rejection):
            assert verdict.retry_after is not None
            early = now + verdict.retry_after - 0.000_001
            if verdict.retry_after > 0.000_001:
                assert isinstance(quota.admit(tokens, early), Rejection)
            now += verdict.retry_after
            admitted(quota, tokens, now)
        now += 0.01


def test_a_bucket_rounds_a_wait_up_to_the_microsecond_and_never_down() -> None:
    quota = Quota(tpm=7, style="bucket")
    admitted(quota, 7, 0.0)
    assert rejected(quota, 1, 0.0).retry_after == 8.571429
    assert rejected(quota, 1, 8.571428).retry_after == 0.000001
    admitted(quota, 1, 8.571429)


@every_style
def test_a_rejected_request_charges_nothing(style: Style) -> None:
    quota = Quota(rpm=2, tpm=100, style=style)
    admitted(quota, 60, 0.0)
    for _ in range(5):
        rejected(quota, 41, 0.0)
    admitted(quota, 40, 0.0)


@every_style
def test_both_dimensions_are_admitted_together_and_the_slower_one_is_named(style: Style) -> None:
    quota = Quota(rpm=1, tpm=1000, style=style)
    admitted(quota, 10, 0.0)
    verdict = rejected(quota, 10, 0.0)
    assert (verdict.dimension, verdict.limit, verdict.used, verdict.requested) == ("requests", 1, 1, 1)
    quota = Quota(rpm=100, tpm=1000, style=style)
    admitted(quota, 999, 0.0)
    verdict = rejected(quota, 10, 0.0)
    assert (verdict.dimension, verdict.limit, verdict.used, verdict.requested) == ("tokens", 1000, 999, 10)


@every_style
def test_a_request_larger_than_the_limit_can_never_fit(style: Style) -> None:
    quota = Quota(rpm=1, tpm=100, style=style)
    assert rejected(quota, 101, 0.0).retry_after is None
    admitted(quota, 100, 0.0)
    assert rejected(quota, 101, 0.0).retry_after is None


@every_style
def test_settling_below_the_reservation_gives_the_rest_back_at_once(style: Style) -> None:
    quota = Quota(tpm=100, style=style)
    admission = admitted(quota, 90, 0.0)
    rejected(quota, 50, 0.0)
    quota.settle(admission, 40, 0.0)
    assert quota.levels(0.0)["tokens"].used == 40
    quota.settle(admission, 40, 0.0)
    assert quota.levels(0.0)["tokens"].used == 40, "settling twice is settling once"
    admitted(quota, 60, 0.0)
    rejected(quota, 1, 0.0)


@pytest.mark.parametrize(("style", "wait"), [("sliding", 55.0), ("bucket", 61.0), ("fixed", 55.0)])
def test_settling_above_the_reservation_overdraws(style: Style, wait: float) -> None:
    quota = Quota(tpm=600, style=style)
    admission = admitted(quota, 100, 0.0)
    quota.settle(admission, 1250, 5.0)
    level = quota.levels(5.0)["tokens"]
    assert level.remaining == 0
    assert rejected(quota, 10, 5.0).retry_after == wait
    admitted(quota, 10, 5.0 + wait)


def test_a_sliding_charge_settles_at_its_own_arrival_and_a_bucket_credits_at_settlement() -> None:
    sliding, bucket = Quota(tpm=600), Quota(tpm=600, style="bucket")
    for quota in (sliding, bucket):
        admission = admitted(quota, 0, 0.0)
        quota.settle(admission, 600, 30.0)
    assert rejected(sliding, 600, 30.0).retry_after == 30.0
    assert rejected(bucket, 600, 30.0).retry_after == 60.0


@pytest.mark.parametrize("style", ["sliding", "fixed"])
def test_settling_after_the_window_changes_nothing(style: Style) -> None:
    quota = Quota(tpm=100, style=style)
    admission = admitted(quota, 100, 0.0)
    quota.settle(admission, 100_000, 60.0)
    assert quota.levels(60.0)["tokens"].used == 0
    admitted(quota, 100, 60.0)


@every_style
def test_limits_scale_with_the_window(style: Style) -> None:
    quota = Quota(rpm=60, tpm=600, window=5.0, style=style)
    levels = quota.levels(0.0)
    assert (levels["requests"].limit, levels["tokens"].limit) == (5, 50)
    admitted(quota, 50, 0.0)
    assert rejected(quota, 50, 1.0).retry_after == 4.0


@pytest.mark.parametrize(("style", "reset"), [("sliding", 40.0), ("bucket", 10.0), ("fixed", 30.0)])
def test_the_level_says_when_nothing_is_used_any_more(style: Style, reset: float) -> None:
    quota = Quota(tpm=600, style=style)
    assert quota.levels(0.0)["tokens"].reset == 0.0
    admitted(quota, 100, 10.0)
    admitted(quota, 200, 10.0)
    later = 30.0
    assert quota.levels(later)["tokens"].reset == reset
    level = quota.levels(later + reset)["tokens"]
    assert (level.used, level.remaining, level.reset) == (0, 600, 0.0)


def test_fixed_windows_begin_at_the_start() -> None:
    quota = Quota(tpm=100, style="fixed", start=7.5)
    admitted(quota, 100, 67.0)
    assert rejected(quota, 1, 67.25).retry_after == 0.25
    admitted(quota, 100, 67.5)


@every_style
def test_a_clock_that_steps_back_mints_no_credit(style: Style) -> None:
    quota = Quota(tpm=100, style=style)
    admitted(quota, 100, 100.0)
    rejected(quota, 100, 10.0)
    rejected(quota, 100, 100.0)


@pytest.mark.parametrize(("rpm", "window"), [(30, 1.0), (60, 0.0), (0, 60.0), (60, -1.0)])
def test_a_window_that_cannot_hold_one_request_is_an_error(rpm: int, window: float) -> None:
    with pytest.raises(ConfigError, match="requests"):
        Quota(rpm=rpm, window=window)


def test_an_unlimited_quota_admits_everything_and_has_no_levels() -> None:
    quota = Quota()
    quota.settle(admitted(quota, 10**9, 0.0), 5, 1.0)
    assert quota.levels(0.0) == {}


# What the styles of providers differ in: 600 tokens and 60 requests a minute


@pytest.mark.parametrize(
    ("style", "arrivals"),
    [
        ("sliding", [(0, 400, None), (30, 200, None), (31, 1, 29), (60, 400, None), (61, 1, 29)]),
        ("bucket", [(0, 600, None), (1, 20, 1), (2, 20, None), (2, 10, 1), (62, 600, None)]),
        ("second", [(0, 10, None), (0, 10, 1), (1, 10, None), (2, 95, None), (3, 1, 7.6), (10.6, 1, None)]),
        ("slices", [(0, 600, None), (59, 1, 1), (60, 600, None), (61, 1, 59)]),
    ],
)
def test_a_style_lets_in_or_says_when(style: Style, arrivals: list[tuple[float, int, float | None]]) -> None:
    quota = Quota(style=style, rpm=60, tpm=600)
    for at, tokens, wait in arrivals:
        verdict = quota.admit(tokens, at)
        assert (verdict.retry_after if isinstance(verdict, Rejection) else None) == wait, at


@pytest.mark.parametrize(("style", "wait"), [("sliding", None), ("bucket", None), ("second", 0.5), ("slices", 0.5)])
def test_requests_are_counted_in_the_grain_of_the_style(style: Style, wait: float | None) -> None:
    """60 requests a minute, two of them half a second apart."""
    quota = Quota(style=style, rpm=60, tpm=60_000)
    assert isinstance(quota.admit(1, 0.0), Admission)
    verdict = quota.admit(1, 0.5)
    assert (verdict.retry_after if isinstance(verdict, Rejection) else None) == wait


@pytest.mark.parametrize("style", STYLES)
def test_what_was_reserved_and_not_used_comes_back_when_it_is_reconciled(style: Style) -> None:
    quota = Quota(style=style, rpm=60, tpm=600)
    admission = quota.admit(600, 0.0)
    assert isinstance(admission, Admission)
    assert isinstance(quota.admit(50, 1.0), Rejection)
    quota.settle(admission, 0, 2.0)
    assert isinstance(quota.admit(50, 2.0), Admission)


@pytest.mark.parametrize("style", STYLES)
def test_input_and_output_have_limits_of_their_own(style: Style) -> None:
    quota = Quota(style=style, itpm=6_000, otpm=600)
    verdict = quota.admit(100, 0.0, input_tokens=100)
    assert isinstance(verdict, Admission)
    quota.settle(verdict, 701, 0.0, input_tokens=100, output_tokens=601)
    over = quota.admit(1, 0.0, input_tokens=1)
    assert isinstance(over, Rejection)
    assert over.dimension == "output_tokens"


sequences = st.lists(
    st.tuples(st.integers(0, 30_000_000), st.integers(0, 120), st.integers(0, 100)), min_size=1, max_size=60
)


@settings(deadline=None)
@given(sequences)
def test_sliding_never_admits_more_than_the_limit_in_any_window(
    steps: list[tuple[int, int, int]],
) -> None:
    """Times in microseconds; every charge is later settled to at most its reservation."""
    quota = Quota(rpm=9, tpm=100, style="sliding")
    charged: list[tuple[int, int]] = []
    now = 0
    for gap, tokens, percent in steps:
        now += gap
        verdict = quota.admit(tokens, now / 1e6)
        fits = tokens <= 100 - sum(cost for at, cost in charged if at + 60_000_000 > now)
        counted = sum(at + 60_000_000 > now for at, _ in charged) < 9
        assert isinstance(verdict, Admission) == (fits and counted)
        if isinstance(verdict, Admission):
            actual = tokens * percent // 100
            quota.settle(verdict, actual, now / 1e6)
            charged.append((now, actual))
    for first, _ in charged:
        inside = [cost for at, cost in charged if first <= at < first + 60_000_000]
        assert sum(inside) <= 100
        assert len(inside) <= 9


@settings(deadline=None)
@given(sequences)
def test_a_bucket_admits_at_most_its_capacity_and_the_refill(steps: list[tuple[int, int, int]]) -> None:
    quota = Quota(tpm=100, style="bucket")
    charged: list[tuple[int, int]] = []
    now = 0
    for gap, tokens, _ in steps:
        now += gap
        if isinstance(quota.admit(tokens, now / 1e6), Admission):
            charged.append((now, tokens))
    for (first, _), (last, _) in itertools.combinations_with_replacement(charged, 2):
        total = sum(cost for at, cost in charged if first <= at <= last)
        assert total * 60_000_000 <= 100 * (60_000_000 + last - first)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0s"),
        (0.000001, "1ms"),
        (0.12, "120ms"),
        (0.9991, "1s"),
        (1.2, "1.2s"),
        (8.64, "8.64s"),
        (60.0, "1m0s"),
        (360.0, "6m0s"),
        (61.5, "1m1.5s"),
        (3600.0, "1h0m0s"),
    ],
)
def test_durations_are_written_as_the_api_writes_them(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_a_refusal_says_when_to_come_back_in_every_form() -> None:
    quota = Quota(tpm=600, style="bucket")
    admitted(quota, 600, 0.0)
    levels = quota.levels(0.0)
    error = refusal(rejected(quota, 12, 0.0), "m", levels)
    assert error.status == 429
    assert error.headers["retry-after"] == "2"
    assert error.headers["retry-after-ms"] == "1200"
    assert error.headers.items() >= limit_headers(levels).items()
    assert str(error) == (
        "Rate limit reached for m in organization org-simulated on tokens per min (TPM): "
        "Limit 600, Used 600, Requested 12. Please try again in 1.2s."
    )


def test_a_refusal_of_what_never_fits_names_no_time() -> None:
    quota = Quota(tpm=600)
    error = refusal(rejected(quota, 601, 0.0), "m", quota.levels(0.0))
    assert str(error).startswith("Request too large for m")
    assert "retry-after" not in error.headers
