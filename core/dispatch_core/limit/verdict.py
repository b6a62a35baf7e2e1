"""What a refusing response means: slow down, the servers are busy, or the money is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dispatch_core import _html
from dispatch_core.limit.headers import duration, number, retry_after

SPENT_NAMES = frozenset(
    {
        *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "credit_balance_exhausted"),
        *("organization_spend_limit_exceeded", "project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
        *("billing_error", "enforced_spend_limit_reached"),
    }
)
"""Codes and types of errors that no pause mends: OpenAI's, then Anthropic's."""

_BUSY_NAMES = frozenset({"slow_down", "server_is_overloaded", "overloaded_error", "UNAVAILABLE"})

_LOOK = 4_000
_FEW = 16
_NAME = re.compile(r'"(?:code|type|error_code)"\s*:\s*"([a-z_]{1,64})"')
_AGAIN = re.compile(
    r"\b(?:try again|retry) (?:in|after) ([0-9][0-9a-zµμ.]{0,40})(?: (second|minute|hour|millisecond)s?\b)?", re.I
)
_WORDS = {"millisecond": 0.001, "second": 1.0, "minute": 60.0, "hour": 3_600.0}
_PER = re.compile(
    r"\b(?:(input|output) )?(token|request)s?(?:_usage_based)? per[ -](second|min|hour|day|month)(?:ute)?\b", re.I
)
_OF = re.compile(r"\b(token|call)s? rate limit|\bnumber of request(s| tokens)\b", re.I)
_QUOTA = re.compile(r"(Input|Output)?(Token|Request)")
_PERIOD = re.compile(r"Per(Second|Minute|Hour|Day|Month)")
_CAP = re.compile(r"\b(?:spend|spending|usage|monthly|budget) (?:[a-z]{1,20} ){0,2}(?:limits?|cap)\b", re.I)
_RATE = re.compile(r"\bper[ -]minute\b|\brate limit", re.I)
_BROKE = re.compile(
    r"reached your specified (?:workspace )?api usage limits|credit balance is too low|\binsufficient balance\b", re.I
)


class Refusal(Enum):
    """Why a provider refused: a rate limit, busy servers, or a budget that no pause refills."""

    THROTTLED = "throttled"
    OVERLOADED = "overloaded"
    SPENT = "spent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refusal, the seconds to wait and the quota that was exhausted; None where the response does not say.

    ``dimension`` is "requests", "tokens", "input_tokens" or "output_tokens" for quotas of a minute, with a suffix
    for others: "requests_per_day".
    """

    kind: Refusal
    retry_after: float | None
    dimension: str | None

    def _repr_html_(self) -> str:
        wait = None if self.retry_after is None else f"{self.retry_after:g} s"
        rows = {"refusal": self.kind.value, "wait": wait, "exhausted": self.dimension}
        return _html.facts({name: value or "not said" for name, value in rows.items()})


def verdict_of(status: int, headers: Mapping[str, str], body: object = None, *, now: float) -> Verdict | None:
    """The meaning of a response for the rate of calls; None if it is no refusal for rate or budget.

    ``body`` is text, bytes or parsed JSON of OpenAI, Azure, Anthropic, Gemini or DeepSeek; only its beginning is
    read. ``now`` is in Unix seconds. Never raises; ``retry_after`` is finite and not negative.
    """
    if status < 400:
        return None
    error = _error_of(body)
    names, message = set(_names(error)), _text(error.get("message"))
    wait = retry_after(headers, now=now)
    if _spent(status, names, message, told_to_wait=wait is not None):
        return Verdict(Refusal.SPENT, None, None)
    busy = not names.isdisjoint(_BUSY_NAMES)
    if status == 529 or (status == 503 and (busy or wait is not None)) or (status == 429 and busy):
        kind = Refusal.OVERLOADED
    elif status == 429:
        kind = Refusal.THROTTLED
    else:
        return None
    if wait is None:
        wait = _wait_in(error, message)
    return Verdict(kind, wait, _dimension(error, message))


def _spent(status: int, names: set[str], message: str, *, told_to_wait: bool) -> bool:
    if status == 402 or not names.isdisjoint(SPENT_NAMES):
        return True
    if status == 429:
        # Anthropic's and Gemini's caps come as 429 too; only a rate limit says when to come back.
        return not told_to_wait and bool(_CAP.search(message) or _BROKE.search(message)) and not _RATE.search(message)
    return status in {400, 403} and bool(_BROKE.search(message))


def _error_of(body: object) -> dict[Any, Any]:
    """The object with message, code and type, out of whatever it is wrapped in."""
    if isinstance(body, bytes | bytearray):
        body = bytes(body[: _LOOK + 1]).decode("utf-8", "replace")
    if isinstance(body, str):
        body = _parsed(body)
    if isinstance(body, list):
        first = next(_dicts(body), None)
        body = {"details": body} if first is not None and "@type" in first else first
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    if isinstance(error, dict):
        return error
    return {"message": error}


def _parsed(text: str) -> object:
    if len(text) <= _LOOK:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    text = text[:_LOOK]
    known = (name for name in _NAME.findall(text) if name in SPENT_NAMES or name in _BUSY_NAMES)
    return {"message": text, "code": next(known, None)}


def _names(error: Mapping[Any, Any]) -> Iterator[str]:
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    return (
        name for name in (error.get("code"), error.get("type"), error.get("status"), code) if isinstance(name, str)
    )


def _wait_in(error: Mapping[Any, Any], message: str) -> float | None:
    for detail in _dicts(error.get("details")):
        wait = duration(detail.get("retryDelay"))
        if wait is not None:
            return wait
    said = _AGAIN.search(message)
    if said is None:
        return None
    amount, word = said.group(1).rstrip("."), said.group(2)
    if word is None:
        return duration(amount)
    count = number(amount)
    return None if count is None else count * _WORDS[word.lower()]


def _dimension(error: Mapping[Any, Any], message: str) -> str | None:
    quotas = [name for quota in _quotas(error) if (name := _dimension_of_quota(quota))]
    if quotas:
        return max(quotas, key=lambda name: name.endswith("_per_day"))  # the one that lasts longest binds
    if said := _PER.search(message):
        side, unit, period = said.groups()
        return _named(side, unit, period)
    if said := _OF.search(message):
        unit = "token" if "token" in said.group(0).lower() else "request"
        return _named(None, unit, "day" if "daily" in message else "min")
    kind = error.get("type")
    return kind if isinstance(kind, str) and kind in {"requests", "tokens"} else None


def _quotas(error: Mapping[Any, Any]) -> Iterator[object]:
    for detail in _dicts(error.get("details")):
        for violation in _dicts(detail.get("violations")):
            yield violation.get("quotaId")
        metadata = detail.get("metadata")
        if isinstance(metadata, dict):
            yield metadata.get("quota_limit")


def _dimension_of_quota(quota: object) -> str | None:
    """ "GenerateRequestsPerDayPerProjectPerModel-FreeTier" is "requests_per_day"."""
    text = _text(quota)
    unit, period = _QUOTA.search(text), _PERIOD.search(text)
    return _named(unit.group(1), unit.group(2), period.group(1)) if unit and period else None


def _named(side: str | None, unit: str, period: str) -> str:
    name = f"{side}_{unit}s" if side else f"{unit}s"
    return (name if period.lower().startswith("min") else f"{name}_per_{period}").lower()


def _text(value: object) -> str:
    return value[:_LOOK] if isinstance(value, str) else ""


def _dicts(values: object) -> Iterator[dict[Any, Any]]:
    return (value for value in values[:_FEW] if isinstance(value, dict)) if isinstance(values, list) else iter(())
