"""What refusing responses mean, on the shapes that providers send."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from types import SimpleNamespace

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.limit.feedback import feedback_of
from dispatch_core.limit.verdict import Refusal, Verdict, verdict_of
from dispatch_core.types import Feedback

NOW = 1_767_268_800.0
LEARN_MORE = "Visit https://platform.openai.com/account/rate-limits to learn more."


def _openai(message, kind="tokens", code="rate_limit_exceeded"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _reached(unit, again):
    where = f"Rate limit reached for gpt-4o in organization org-x on {unit}"
    return _openai(f"{where}: Limit 30000, Used 29937, Requested 385. Please try again in {again}. {LEARN_MORE}")


def _anthropic(message, kind="rate_limit_error", **more):
    return {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_1"}


def _exceeded(quota):
    return _anthropic(
        f"This request would exceed your organization's rate limit of {quota}. For details, refer to: "
        "https://docs.anthropic.com/en/api/rate-limits. You can see the response headers for current usage."
    )


def _gemini(*details, message="You exceeded your current quota, please check your plan and billing details."):
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": list(details)}}


def _violations(*quotas):
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    violations = [{"quotaMetric": metric, "quotaId": quota, "quotaValue": "20"} for quota in quotas]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}


HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": [{"description": "Learn more", "url": "https://x"}]}
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
INPUT = "GenerateContentInputTokensPerModelPerMinute-FreeTier"


def _retry(delay):
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def _verdict(status, body=None, **headers):
    return verdict_of(status, {name.replace("_", "-"): text for name, text in headers.items()}, body, now=NOW)


# Which refusals there are


@pytest.mark.parametrize("status", [0, 200, 204, 301, 400, 401, 403, 404, 408, 413, 500, 502, 503, 504])
def test_most_responses_refuse_nothing_for_rate(status):
    assert _verdict(status) is None
    assert _verdict(status, _openai("The model does not exist", "invalid_request_error", "model_not_found")) is None


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_pause_alone_makes_no_refusal(status):
    assert _verdict(status, retry_after="5") is None


def test_a_429_that_says_nothing_is_throttled():
    assert _verdict(429) == Verdict(Refusal.THROTTLED, None, None)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (529, None, {}),
        (529, _anthropic("Overloaded", "overloaded_error"), {}),
        (503, None, {"retry_after": "3"}),
        (503, _openai("Slow down", "service_unavailable_error", "slow_down"), {}),
        (503, _openai("Busy", "service_unavailable_error", "server_is_overloaded"), {}),
        (503, {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}, {}),
        (429, _openai("Your traffic grew too quickly", "rate_limit_error", "slow_down"), {}),
    ],
)
def test_busy_servers_are_overloaded(status, body, headers):
    verdict = _verdict(status, body, **headers)
    assert verdict.kind is Refusal.OVERLOADED
    assert verdict.retry_after == (3 if headers else None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, _openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
        (429, _openai("You exceeded your current quota", "insufficient_quota", None)),
        (429, _openai("No credits", "insufficient_quota", "credit_balance_exhausted")),
        (429, _openai("A limit of the project", "rate_limit_error", "project_spend_limit_exceeded")),
        (400, _openai("Billing hard limit has been reached", "invalid_request_error", "billing_hard_limit_reached")),
        (429, _openai("Your account is not active", "billing_not_active", "billing_not_active")),
        (402, None),
        (402, _openai("Insufficient Balance", "unknown_error", "invalid_request_error")),
        (400, _openai("Insufficient Balance", "unknown_error", "invalid_request_error")),
        (402, _anthropic("There is an issue with your billing", "billing_error")),
        (400, _anthropic("There is an issue with your billing", "billing_error")),
        (403, _anthropic("There is an issue with your billing", "billing_error")),
        (400, _anthropic("Your credit balance is too low to access the Anthropic API.", "invalid_request_error")),
        (400, _anthropic("You have reached your specified API usage limits.", "invalid_request_error")),
        (400, _anthropic("You have reached your specified workspace API usage limits.", "invalid_request_error")),
        (429, _anthropic("You have reached your specified API usage limits. You will regain access on 2026-02-01.")),
        (429, _anthropic("Your organization has reached its monthly spend limit.")),
        (429, _anthropic("The workspace has hit its spending cap.")),
        (429, _anthropic("No more.", details={"error_code": "enforced_spend_limit_reached"})),
        (429, _gemini(HELP, message="Your billing account has exceeded its monthly spending cap.")),
    ],
)
def test_a_spent_budget_is_never_retried(status, body):
    assert _verdict(status, body) == Verdict(Refusal.SPENT, None, None)


def test_a_code_of_a_spent_budget_counts_more_than_a_pause():
    body = _openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota")
    assert _verdict(429, body, retry_after="20").kind is Refusal.SPENT


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (_anthropic("The workspace has reached its monthly spend limit."), {"retry_after": "20"}),
        (
            _anthropic(
                "This request would exceed the rate limit for your workspace of 20,000 input tokens per minute"
            ),
            {},
        ),
        (_anthropic("This would exceed your organization's maximum usage increase rate for tokens per minute."), {}),
        (_anthropic("This request would exceed your account's rate limit. Please try again later."), {}),
        (_gemini(HELP), {}),
        (_openai("Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 31538."), {}),
    ],
)
def test_a_rate_is_not_mistaken_for_a_budget(body, headers):
    assert _verdict(429, body, **headers).kind is Refusal.THROTTLED


def test_a_successful_response_that_mentions_budgets_is_no_refusal():
    assert _verdict(200, _openai("", "insufficient_quota", "insufficient_quota")) is None


# When to come back


@pytest.mark.parametrize(
    ("again", "seconds"),
    [
        ("634ms", 0.634),
        ("6m0s", 360),
        ("1.2s", 1.2),
        ("20s", 20),
        ("1m26.4s", 86.4),
        ("7h12m0s", 25_920),
        ("6ms", 0.006),
    ],
)
def test_openai_says_the_pause_in_its_message(again, seconds):
    assert _verdict(429, _reached("tokens per min (TPM)", again)).retry_after == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 6 seconds.", 6),
        ("Please retry after 1 second. Please contact Azure support service", 1),
        ("Please retry after 86400 seconds.", 86_400),
        ("Please try again in 6 minutes.", 360),
        ("* Quota exceeded for metric: x, limit: 20\nPlease retry in 58.821668433s.", 58.821668433),
        ("Please try again in 6 potatoes", None),
        ("Please try again in 6", None),
        ("Please try again in 5.5.5s", None),
        ("Please try again in 1e309s", None),
        ("Please try again in -5s", None),
        ("Please try again in " + "9" * 3_000 + "s", None),
        ("Please try again later", None),
        ("x" * 10_000 + " Please try again in 5s", None),
    ],
)
def test_other_messages_say_it_in_other_words(message, seconds):
    assert _verdict(429, _openai(message)).retry_after == seconds


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("34s", 34),
        ("34.074824224s", 34.074824224),
        ("0s", 0),
        ("-1s", None),
        ("soon", None),
        (34, None),
        (None, None),
    ],
)
def test_gemini_says_it_in_its_details(delay, seconds):
    assert _verdict(429, _gemini(HELP, _retry(delay))).retry_after == seconds


def test_headers_come_first_then_details_then_the_message():
    body = _gemini(_retry("30s"), message="Please retry in 40s.")
    assert _verdict(429, body, retry_after_ms="1500", retry_after="20").retry_after == 1.5
    assert _verdict(429, body, retry_after="20").retry_after == 20
    assert _verdict(429, body, retry_after="Thu, 01 Jan 2026 12:00:50 GMT").retry_after == 50
    assert _verdict(429, body, retry_after="soon").retry_after == 30
    assert _verdict(429, _gemini(message="Please retry in 40s.")).retry_after == 40


# Which quota


@pytest.mark.parametrize(
    ("body", "dimension"),
    [
        (_reached("tokens per min (TPM)", "1s"), "tokens"),
        (_reached("requests per min (RPM)", "1s"), "requests"),
        (_reached("requests per day (RPD)", "8.64s"), "requests_per_day"),
        (_reached("tokens per day (TPD)", "3m27s"), "tokens_per_day"),
        (_reached("tokens_usage_based per min", "1s"), "tokens"),
        (_openai("Slow down", "requests"), "requests"),
        (_openai("Slow down", "rate_limit_error"), None),
        (_openai("have exceeded token rate limit of your current OpenAI S0 pricing tier."), "tokens"),
        (_openai("have exceeded call rate limit of your current OpenAI S0 pricing tier.", None, "429"), "requests"),
        (_exceeded("20,000 input tokens per minute"), "input_tokens"),
        (_exceeded("8,000 output tokens per minute"), "output_tokens"),
        (_exceeded("50 requests per minute"), "requests"),
        (_anthropic("Number of requests has exceeded your per-minute rate limit"), "requests"),
        (_anthropic("Number of request tokens has exceeded your per-minute rate limit"), "tokens"),
        (_anthropic("Number of request tokens has exceeded your daily rate limit"), "tokens_per_day"),
        (_anthropic("Number of concurrent connections has exceeded your rate limit"), None),
        (_gemini(_violations(MINUTE)), "requests"),
        (_gemini(_violations(DAY), _retry("5s")), "requests_per_day"),
        (_gemini(_violations(INPUT)), "input_tokens"),
        (_gemini(_violations(INPUT, MINUTE, DAY)), "requests_per_day"),
        (_gemini({"@type": "x", "metadata": {"quota_limit": "Gemini25ProRequestsPerDay"}}), "requests_per_day"),
        (_gemini(_violations("Nothing", None, 7)), None),
        (_gemini(message="Quota exceeded for quota metric 'Generate Content API requests per minute'"), "requests"),
    ],
)
def test_the_exhausted_quota_is_named(body, dimension):
    assert _verdict(429, body).dimension == dimension


# In which wrapping


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda body: body, lambda body: body["error"], json.dumps, lambda body: json.dumps(body).encode()),
        *(
            lambda body: [body],
            lambda body: json.dumps([body], indent=2),
            lambda body: bytearray(json.dumps(body), "utf-8"),
        ),
    ],
)
@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (_reached("tokens per min (TPM)", "634ms"), Verdict(Refusal.THROTTLED, 0.634, "tokens")),
        (_exceeded("8,000 output tokens per minute"), Verdict(Refusal.THROTTLED, None, "output_tokens")),
        (_gemini(_violations(DAY), _retry("47s")), Verdict(Refusal.THROTTLED, 47, "requests_per_day")),
        (_openai("You exceeded", "insufficient_quota", "insufficient_quota"), Verdict(Refusal.SPENT, None, None)),
    ],
)
def test_a_body_is_understood_in_any_wrapping(wrap, body, verdict):
    assert _verdict(429, wrap(body)) == verdict


def test_a_list_of_details_alone_is_understood():
    assert _verdict(429, [_violations(DAY), _retry("47s")]) == Verdict(Refusal.THROTTLED, 47, "requests_per_day")


def test_plain_text_and_an_error_that_is_a_text_are_read_as_the_message():
    text = _reached("tokens per min (TPM)", "634ms")["error"]["message"]
    assert _verdict(429, text) == _verdict(429, {"error": text}) == Verdict(Refusal.THROTTLED, 0.634, "tokens")


@pytest.mark.parametrize("form", [str, str.encode])
def test_only_the_beginning_of_a_long_body_is_read(form):
    spent = json.dumps(_openai("Spent", "insufficient_quota", "insufficient_quota") | {"padding": "x" * 1_000_000})
    assert _verdict(429, form(spent)).kind is Refusal.SPENT
    late = json.dumps({"padding": "x" * 1_000_000} | _reached("tokens per min (TPM)", "634ms"))
    assert _verdict(429, form(late)) == Verdict(Refusal.THROTTLED, None, None)


LOOP: dict[str, object] = {}
LOOP["error"] = LOOP
LOOP["details"] = [LOOP]


@pytest.mark.parametrize(
    "body",
    [
        *["", "{", "[" * 4_000, '{"error":' * 400, "null", "NaN", "9" * 4_000, b"\xff\xfe", b"", 7, 1.5, object()],
        *[[], [[]], [None], {}, {"error": None}, {"error": []}, {"error": {"message": {}, "code": [], "type": 5}}],
        *[{"error": {"details": "x"}}, {"error": {"details": [None, 5, {"violations": 5, "metadata": 5}]}}],
        *[{"error": {"message": "\ud800"}}, {1: 2}, LOOP, "try again in " * 400, "requests per " * 400],
    ],
    ids=lambda body: str(type(body)),
)
def test_a_body_of_nonsense_changes_nothing(body):
    assert _verdict(429, body) == Verdict(Refusal.THROTTLED, None, None)


WORDS = st.sampled_from(
    [
        *["message", "code", "type", "status", "details", "error", "violations", "quotaId", "metadata", "retryDelay"],
        *["Please try again in 5s", "retry after 1e309 seconds", DAY, "9" * 50 + "s", "-5s", "insufficient_quota"],
        *["@type", "tokens per min", "slow_down", "Thu, 01 Jan 2026 12:00:30 GMT", "requests"],
    ]
)
TEXTS = st.text('0123456789.smhd-e{}[]":, \x00é你\ud800', max_size=20)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | WORDS | st.binary(max_size=20)
BODIES = st.recursive(LEAVES, lambda kids: st.lists(kids) | st.dictionaries(WORDS | TEXTS, kids))
HEADERS = st.dictionaries(st.sampled_from(["retry-after", "Retry-After", "retry-after-ms"]), TEXTS | WORDS)


@given(st.sampled_from([200, 400, 402, 403, 429, 500, 503, 529]), HEADERS, BODIES, st.floats())
def test_nothing_raises_and_no_pause_is_negative_or_endless(status, headers, body, now):
    verdict = verdict_of(status, headers, body, now=now)
    if verdict is not None and verdict.retry_after is not None:
        assert math.isfinite(verdict.retry_after)
        assert verdict.retry_after >= 0


# What is made of an SDK's exception


def _raised(status, body, **headers):
    """The exception that OpenAI's client raises for a response; it reads the body itself."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    request = httpx.Request("POST", "https://api.openai.com/v1/chat/completions")
    response = httpx.Response(status, headers=names, json=body, request=request)
    return openai.OpenAI(api_key="x")._make_status_error_from_response(response)


def test_a_throttled_call_is_feedback_with_the_pause_of_its_headers():
    feedback = feedback_of(_raised(429, _reached("tokens per min (TPM)", "9s"), retry_after_ms="634"), now=NOW)
    assert (feedback.status, feedback.retry_after) == (429, 0.634)
    assert feedback.headers["retry-after-ms"] == "634"


def test_a_throttled_call_is_feedback_with_the_pause_of_its_message():
    assert feedback_of(_raised(429, _reached("tokens per min (TPM)", "9s")), now=NOW).retry_after == 9


def test_a_spent_budget_is_no_feedback():
    assert feedback_of(_raised(429, _openai("Spent", "insufficient_quota", "insufficient_quota")), now=NOW) is None
    assert feedback_of(_raised(402, _openai("Insufficient Balance", "unknown_error", "x")), now=NOW) is None


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_a_code_on_the_error_is_enough_for_a_spent_budget(code):
    assert feedback_of(_error(status_code=429, code=code), now=NOW) is None


def test_other_failures_are_feedback_with_their_status():
    assert feedback_of(_raised(500, _openai("Oops", "server_error", None), retry_after="2"), now=NOW).status == 500
    assert feedback_of(_raised(500, None, retry_after="2"), now=NOW).retry_after == 2
    assert feedback_of(_raised(400, _openai("No", "invalid_request_error", None)), now=NOW).retry_after is None


@pytest.mark.parametrize("error", [ValueError("x"), KeyError(), ConnectionError(), SystemExit(1)])
def test_an_error_without_a_response_is_no_feedback(error):
    assert feedback_of(error, now=NOW) is None


def _error(**facts):
    error = Exception("refused")
    for name, value in facts.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize("status", [429, HTTPStatus.TOO_MANY_REQUESTS])
@pytest.mark.parametrize("details", [_gemini(_retry("34s")), _gemini(_retry("34s"))["error"]["details"]])
def test_googles_errors_keep_status_and_body_elsewhere(status, details):
    assert feedback_of(_error(code=status, details=details, response=None), now=NOW) == Feedback(429, 34)


def test_details_that_are_a_method_are_not_called():
    assert feedback_of(_error(code=429, details=lambda: 1 / 0), now=NOW) == Feedback(429)


def test_the_body_of_a_streaming_response_is_not_read():
    class Streaming:
        status_code, headers = 429, httpx.Headers({"Retry-After": "3"})

        def __getattr__(self, name):
            raise AssertionError(f"{name} was read")

    feedback = feedback_of(_error(response=Streaming()), now=NOW)
    assert (feedback.retry_after, feedback.headers) == (3, {"retry-after": "3"})


def test_names_of_headers_are_given_in_lower_case():
    response = SimpleNamespace(status_code=429, headers={"X-Request-ID": 7, "Retry-After": "5"})
    assert feedback_of(_error(response=response), now=NOW).headers == {"x-request-id": "7", "retry-after": "5"}
