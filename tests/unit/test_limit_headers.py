"""What a response's headers say about quotas, and everything they may say that must not be believed."""

from __future__ import annotations

import math
from types import MappingProxyType

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from dispatch_core.limit.feedback import retry_after as retry_after_by_the_wall_clock
from dispatch_core.limit.headers import Reading, duration, number, readings, retry_after

NOON = 1_767_268_800.0
"""2026-01-01T12:00:00Z."""

OPENAI = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "199821",
    "x-ratelimit-reset-requests": "8.64s",
    "x-ratelimit-reset-tokens": "6m0s",
}
SAID = {"requests": Reading(10_000, 9_999, 8.64), "tokens": Reading(200_000, 199_821, 360)}

ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-01-01T12:00:01Z",
    "anthropic-ratelimit-tokens-limit": "38000",
    "anthropic-ratelimit-tokens-remaining": "38000",
    "anthropic-ratelimit-tokens-reset": "2026-01-01T12:00:00Z",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2026-01-01T12:01:00Z",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "7000",
    "anthropic-ratelimit-output-tokens-reset": "2026-01-01T12:00:07.5Z",
}


def _title(headers):
    return {name.title(): value for name, value in headers.items()}


def _reset(text):
    """The reset that one openai header says, 0 requests being left to make it a reading."""
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}
    return readings(headers, "openai", now=NOON)["requests"].reset


def _date(text):
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": text}
    return readings(headers, "anthropic", now=NOON)["requests"].reset


# What is said


@pytest.mark.parametrize(
    "form",
    [
        *(dict, _title, httpx.Headers, CIMultiDict, MappingProxyType),
        *(
            lambda headers: httpx.Headers(_title(headers)),
            lambda headers: CIMultiDictProxy(CIMultiDict(_title(headers))),
        ),
        lambda headers: MappingProxyType(_title(headers)),
    ],
)
def test_names_are_read_in_any_case_and_from_any_mapping(form):
    assert readings(form(OPENAI), "openai", now=NOON) == SAID


def test_one_header_in_another_case_than_the_rest_is_read_too():
    headers = {name.upper() if "reset" in name else name: value for name, value in OPENAI.items()}
    assert readings(headers, "openai", now=NOON) == SAID


def test_four_dimensions_are_read_with_dates_as_resets():
    assert readings(ANTHROPIC, "anthropic", now=NOON) == {
        "requests": Reading(50, 49, 1),
        "tokens": Reading(38_000, 38_000, 0),
        "input_tokens": Reading(30_000, 0, 60),
        "output_tokens": Reading(8_000, 7_000, 7.5),
    }


def test_a_style_reads_only_its_own_headers():
    assert readings(ANTHROPIC, "openai", now=NOON) == readings(OPENAI, "anthropic", now=NOON) == {}


def test_what_is_not_mentioned_is_left_out():
    headers = {"content-type": "application/json", "x-ratelimit-remaining-tokens": "7"}
    assert readings(headers, "openai", now=NOON) == {"tokens": Reading(None, 7, None)}
    assert readings({}, "openai", now=NOON) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3_723.5), ("8.64s", 8.64), ("1d2h", 93_600), ("20s", 20)],
        *[("2m59.56s", 179.56), ("0s", 0), ("500µs", 5e-4), ("500μs", 5e-4), ("500us", 5e-4), ("500Âµs", 5e-4)],
        *[("250ns", 2.5e-7), ("1.5ms", 1.5e-3), ("31d", 2_678_400), ("34.074824224s", 34.074824224)],
    ],
)
def test_a_duration_is_read_as_go_writes_it(text, seconds):
    assert duration(text) == pytest.approx(seconds)
    assert _reset(text) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "seconds"), [("12", 12), ("0.5", 0.5), ("0", 0)])
def test_a_reset_without_a_unit_is_in_seconds(text, seconds):
    assert _reset(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("2026-01-01T12:00:30Z", 30), ("2026-01-01T12:00:30.25Z", 30.25), ("2026-01-01T14:00:30+02:00", 30)],
        *[("2026-01-01T04:00:30-08:00", 30), ("2026-01-01 12:00:30Z", 30), ("2026-01-01t12:00:30z", 30)],
        *[("2026-01-01T12:00:00.123456789Z", 0.123456), ("2026-01-31T12:00:00Z", 30 * 86_400)],
    ],
)
def test_a_date_is_read_in_every_form_of_rfc_3339(text, seconds):
    assert _date(text) == pytest.approx(seconds, abs=1e-5)


# What is not believed

NONSENSE = [
    *[
        "",
        " ",
        "-1",
        "+1",
        "1e3",
        "1e309",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1_000",
        "1,000",
        "ten",
        "0x10",
        "1 000",
    ],
    *["٣", "１２", "1²", "1\n", ".5", "1.", "1.2.3", "60, 60", "9" * 10_000, "1." + "0" * 10_000],
    *[b"60", None, 60, 60.0, ["60"], {"60": 1}],
]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:12])
def test_nonsense_is_as_if_it_were_not_there(value):
    assert number(value) is None
    assert readings(dict.fromkeys(OPENAI, value), "openai", now=NOON) == {}
    assert readings(dict.fromkeys(ANTHROPIC, value), "anthropic", now=NOON) == {}


@pytest.mark.parametrize("name", OPENAI)
@pytest.mark.parametrize("value", ["-1", "1e309", None, b"5"])
def test_one_bad_field_leaves_the_others(name, value):
    said = readings(OPENAI | {name: value}, "openai", now=NOON)
    _, _, field, dimension = name.split("-")
    expected = {one: {part: getattr(SAID[one], part) for part in Reading.__slots__} for one in SAID}
    expected[dimension][field] = None
    assert said == {one: Reading(**parts) for one, parts in expected.items()}


@pytest.mark.parametrize(
    "text",
    [
        *["5", "s", "ms", "6m 0s", "-6m", "6M", "6min", "1e3s", "1_0s", "٣s", "1.s", ".5s", "nans", "infs", "6m0"],
        *["1s" * 10_000, "9" * 10_000 + "s", "6m0s\n", "6m0s,6m0s", "", None, 5, b"5s"],
    ],
    ids=lambda text: repr(text)[:12],
)
def test_what_is_no_duration_is_none(text):
    assert duration(text) is None


@pytest.mark.parametrize("text", ["31d1s", "745h", "999999999999999s", "2678401", "1767268800"])
def test_a_reset_beyond_a_month_is_none(text):
    assert _reset(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *["2026-01-01T11:59:59Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
        *[
            "2026-02-02T12:00:00Z",
            "2026-01-01T12:00:30",
            "2026-01-01",
            "2026-13-01T12:00:30Z",
            "2026-01-01T25:00:00Z",
        ],
        *["2026-01-01T12:00:60Z", "2026-01-01T12:00:30+99:99", "２０２６-01-01T12:00:30Z", "60", "60s", "tomorrow"],
        *["2026-01-01T12:00:30." + "0" * 10_000 + "Z", "2026-W01-4T12:00:30Z", "20260101T120030Z", 30, None],
    ],
    ids=lambda text: repr(text)[:34],
)
def test_a_date_that_is_past_far_or_no_date_is_none(text):
    assert _date(text) is None


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_a_broken_clock_mints_no_reset(now):
    assert readings(ANTHROPIC, "anthropic", now=now)["requests"] == Reading(50, 49, None)


def test_a_limit_of_nothing_is_no_limit():
    headers = {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}
    assert readings(headers, "openai", now=NOON) == {"tokens": Reading(None, 0, None)}
    assert readings({"x-ratelimit-limit-tokens": "0"}, "openai", now=NOON) == {}


def test_more_left_than_there_is_says_nothing_about_what_is_left():
    headers = {"x-ratelimit-limit-tokens": "100", "x-ratelimit-remaining-tokens": "101"}
    assert readings(headers, "openai", now=NOON) == {"tokens": Reading(100, None, None)}


TEXTS = st.one_of(
    st.text("0123456789.smhdnuµe+-_TZ: ,\x00\n٣１²é你\ud800", max_size=60),
    st.text("0123456789.smhd", max_size=30),
    st.tuples(st.integers(0), st.sampled_from(["", ".5s", "ms", "s", "m", "h", "d"])).map(
        lambda both: f"{both[0]}{both[1]}"
    ),
    st.datetimes().map(lambda date: date.isoformat() + "Z"),
    st.sampled_from(["1e309", "nan", "inf", "-0", "0", "6m0s", "9" * 400]),
)


@given(
    st.dictionaries(st.sampled_from([*OPENAI, *_title(OPENAI)]), TEXTS),
    st.dictionaries(st.sampled_from([*ANTHROPIC, *_title(ANTHROPIC)]), TEXTS),
    st.floats(),
)
def test_no_text_raises_or_mints_a_number(openai, anthropic, now):
    said = [*readings(openai, "openai", now=now).values(), *readings(anthropic, "anthropic", now=now).values()]
    for reading in said:
        known = [value for value in (reading.limit, reading.remaining, reading.reset) if value is not None]
        assert known
        assert all(math.isfinite(value) and value >= 0 for value in known)
        assert reading.remaining is None or reading.limit is None or reading.remaining <= reading.limit


# When to come back


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "634", "retry-after": "1"}, 0.634),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        ({"Retry-After": "7"}, 7),
        ({"RETRY-AFTER-MS": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:59:30 GMT"}, None),
        ({"retry-after": "Thu, 99 Jan 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT" + " " * 10_000}, None),
        ({"retry-after": "Thursday, 01-Jan-26 12:00:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_pause_is_read_from_seconds_milliseconds_or_a_date(headers, seconds):
    assert retry_after(headers, now=NOON) == seconds


@pytest.mark.parametrize("value", NONSENSE, ids=lambda value: repr(value)[:12])
def test_a_pause_that_makes_no_sense_is_none(value):
    assert retry_after({"retry-after": value, "retry-after-ms": value}, now=NOON) is None


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "Retry-After"]), TEXTS), st.floats())
def test_no_pause_is_negative_or_endless(headers, now):
    seconds = retry_after(headers, now=now)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


def test_the_feedback_module_reads_pauses_with_the_same_parser():
    assert retry_after_by_the_wall_clock({"retry-after-ms": "634"}) == 0.634
    assert retry_after_by_the_wall_clock({"retry-after": "1_000"}) is None
