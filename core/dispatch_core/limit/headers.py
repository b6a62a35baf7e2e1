"""What response headers say about quotas. A header that makes no sense is as if it were not there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

HeaderStyle: TypeAlias = Literal["openai", "anthropic"]

_LONGEST_RESET = 31 * 86_400.0
_LONGEST_TEXT = 48

_N = r"([0-9]{1,15}(?:\.[0-9]{1,20})?)"
_NUMBER = re.compile(_N)
_PART = re.compile(rf"{_N}(ms|[dhms]|Â?µs|μs|us|ns)")
# "Âµs" is "µs" in UTF-8 as read by a client that takes headers for Latin-1.
_UNITS = {
    **{"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "ns": 1e-9},
    **dict.fromkeys(("us", "µs", "μs", "Âµs"), 1e-6),
}
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

_ROWS: dict[HeaderStyle, tuple[tuple[str, str, str, str], ...]] = {
    "openai": tuple(
        (name, f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}")
        for name in ("requests", "tokens")
    ),
    "anthropic": tuple(
        (
            name.replace("-", "_"),
            *(f"anthropic-ratelimit-{name}-limit", f"anthropic-ratelimit-{name}-remaining"),
            f"anthropic-ratelimit-{name}-reset",
        )
        for name in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One dimension of a quota: its size, what is left of it and the seconds from now until it is full again."""

    limit: float | None
    remaining: float | None
    reset: float | None


def readings(headers: Mapping[str, str], style: HeaderStyle, *, now: float) -> dict[str, Reading]:
    """What the headers say of "requests", "tokens", "input_tokens", "output_tokens"; the unmentioned are left out.

    ``now`` is in Unix seconds. Names in any case. Never raises; every number is finite and not negative.
    """
    get = headers.get
    folded: Mapping[str, str] | None = None
    reset_of: Callable[[object, float], float | None] = _after if style == "openai" else _at
    found: dict[str, Reading] = {}
    for dimension, limit_name, remaining_name, reset_name in _ROWS[style]:
        said: tuple[object, object, object] = get(limit_name), get(remaining_name), get(reset_name)
        if None in said:
            # Only now: lower-casing every name costs as much as all the rest.
            folded = _folded(headers) if folded is None else folded
            said = folded.get(limit_name), folded.get(remaining_name), folded.get(reset_name)
        limit, remaining, reset = number(said[0]), number(said[1]), reset_of(said[2], now)
        if limit == 0:
            limit = None
        elif limit is not None and remaining is not None and remaining > limit:
            remaining = None
        if limit is not None or remaining is not None or reset is not None:
            found[dimension] = Reading(limit, remaining, reset)
    return found


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after``, a number or an HTTP date; None for nonsense."""
    milliseconds = number(_header(headers, "retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = _header(headers, "retry-after")
    seconds = number(said)
    if seconds is not None or not isinstance(said, str) or not _HTTP_DATE.fullmatch(said):
        return seconds
    try:
        seconds = parsedate_to_datetime(said).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def number(text: object) -> float | None:
    """Digits with or without a decimal part, and nothing else: no sign, no exponent, no separators."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return None
    if text.isdecimal() and text.isascii():
        return float(text)
    return float(text) if _NUMBER.fullmatch(text) else None


def duration(text: object) -> float | None:
    """Seconds in a duration as Go writes it, ``1h2m3.5s`` or ``120ms``; days are understood too."""
    if not isinstance(text, str) or not text or len(text) > _LONGEST_TEXT:
        return None
    if text[-2:] == "ms" and text[:-2].isdecimal() and text.isascii():
        return float(text[:-2]) * 1e-3
    seconds, read = 0.0, 0
    for amount, unit in _PART.findall(text):
        seconds += float(amount) * _UNITS[unit]
        read += len(amount) + len(unit)
    return seconds if read == len(text) else None


def _after(text: object, now: float) -> float | None:
    """The reset of a duration or of plain seconds."""
    seconds = duration(text)
    if seconds is None:
        seconds = number(text)
    return seconds if seconds is not None and seconds <= _LONGEST_RESET else None


def _at(text: object, now: float) -> float | None:
    """The reset of an RFC 3339 date."""
    if not isinstance(text, str) or not _RFC_3339.fullmatch(text):
        return None
    try:
        seconds = datetime.fromisoformat(text.upper()).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LONGEST_RESET else None


def _folded(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if isinstance(name, str)}


def _header(headers: Mapping[str, str], name: str) -> object:
    value = headers.get(name)
    return value if value is not None else _folded(headers).get(name)
