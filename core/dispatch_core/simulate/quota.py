"""The quota of a provider, as arithmetic: requests and tokens, five ways to count, time as an argument.

On arrival a request is charged one request and the tokens it reserves; when it is done the charge is
rewritten to what it really used (`Quota.settle`). A rejected request charges nothing (some providers do
count rejected requests; this one does not). An actual use above the reserved one may leave the quota
overdrawn: nothing is admitted until it has recovered.

=========  ==================================================  ================================================
style      counts                                              reconciles
=========  ==================================================  ================================================
sliding    every charge for one window from its arrival        in place, at the arrival
bucket     against one window's worth, refilled continuously   by a credit on completion, never above full
second     against one second's worth, refilled continuously;  by a credit on completion, never above full
           tokens above that are let in when the bucket is
           full and leave a debt
slices     tokens in whole windows, requests in whole seconds  in place while the window lasts, then not at all
fixed      tokens and requests in whole windows                in place while the window lasts, then not at all
=========  ==================================================  ================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from dispatch_core.errors import ConfigError
from dispatch_core.simulate.gauges import (
    MICROSECONDS,
    UNITS,
    Bucket,
    Charge,
    FixedWindow,
    Gauge,
    ShallowBucket,
    SlidingLog,
)

Style = Literal["sliding", "bucket", "second", "slices", "fixed"]
Dimension = Literal["requests", "tokens", "input_tokens", "output_tokens"]

STYLES: tuple[Style, ...] = get_args(Style)


@dataclass(frozen=True, slots=True)
class Level:
    """Where one dimension stands: amounts per window, and seconds until nothing of it is used."""

    limit: int
    used: int
    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Admission:
    """A request the quota let in; hand it to `Quota.settle` when the real number of tokens is known."""

    charges: Mapping[Dimension, Charge]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request the quota refused.

    ``retry_after`` is in seconds; None means that the request alone is larger than the limit.
    """

    dimension: Dimension
    limit: int
    used: int
    requested: int
    retry_after: float | None


def _gauge(style: Style, dimension: Dimension, per_minute: int, span: int) -> Gauge:
    """What counts `dimension`; `span` is the window in microseconds."""
    counts_requests = dimension == "requests"
    if style == "second" or (style == "slices" and counts_requests):
        span = MICROSECONDS
    if span <= 0 or per_minute * span < UNITS:
        seconds = f"{span / MICROSECONDS:g} s"
        raise ConfigError(f"{per_minute} {dimension} a minute leave less than one in {seconds}")
    match style:
        case "sliding":
            return SlidingLog(per_minute, span)
        case "bucket":
            return Bucket(per_minute, span)
        case "second":
            return Bucket(per_minute, span) if counts_requests else ShallowBucket(per_minute, span)
        case "slices" | "fixed":
            return FixedWindow(per_minute, span)


class Quota:
    """Requests and tokens, admitted together or not at all. Not thread-safe: one thread owns it.

    ``rpm``, ``tpm``, ``itpm`` (input) and ``otpm`` (output) are per minute (None: unlimited) and counted over
    ``window`` seconds, so a window holds ``limit * window / 60`` of them; the styles that count in seconds leave it
    aside. ``start`` is the instant (seconds) at which the first fixed window begins and a bucket is full. A clock
    that steps back is held still.

    Raises `ConfigError` when a window is too short to hold one request or one token.
    """

    def __init__(
        self,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        itpm: int | None = None,
        otpm: int | None = None,
        window: float = 60.0,
        style: Style = "sliding",
        start: float = 0.0,
    ) -> None:
        if style not in STYLES:
            raise ConfigError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
        span = round(window * MICROSECONDS)
        self._start = start
        self._now = 0
        limits: dict[Dimension, int | None] = {
            "requests": rpm,
            "tokens": tpm,
            "input_tokens": itpm,
            "output_tokens": otpm,
        }
        self._gauges: dict[Dimension, Gauge] = {
            name: _gauge(style, name, limit, span) for name, limit in limits.items() if limit is not None
        }

    def _tick(self, now: float) -> int:
        self._now = max(self._now, round((now - self._start) * MICROSECONDS))
        return self._now

    def admit(
        self, tokens: int, now: float, *, input_tokens: int = 0, output_tokens: int = 0
    ) -> Admission | Rejection:
        """Charge one request and what it reserves at `now` (seconds), or say what refuses and for how long.

        `tokens` is what counts against ``tpm``. When several refuse, the one that takes longest is named; one that
        can never fit goes before all.
        """
        at = self._tick(now)
        costs: dict[Dimension, int] = {
            "requests": 1,
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }
        refused: tuple[Dimension, int] | None = None
        for dimension, gauge in self._gauges.items():
            wait = gauge.wait(costs[dimension], at)
            if wait is None:
                return Rejection(dimension, gauge.limit, gauge.used(at), costs[dimension], None)
            if wait > (refused[1] if refused else 0):
                refused = (dimension, wait)
        if refused:
            dimension, wait = refused
            gauge = self._gauges[dimension]
            return Rejection(dimension, gauge.limit, gauge.used(at), costs[dimension], wait / MICROSECONDS)
        return Admission({name: gauge.charge(costs[name], at) for name, gauge in self._gauges.items()})

    def settle(
        self, admission: Admission, tokens: int, now: float, *, input_tokens: int = 0, output_tokens: int = 0
    ) -> None:
        """Rewrite an admission to what it really used. Doing so twice is the same as once."""
        actual: dict[Dimension, int] = {
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }
        at = self._tick(now)
        for name, amount in actual.items():
            if name in admission.charges:
                self._gauges[name].settle(admission.charges[name], amount, at)

    def levels(self, now: float) -> dict[Dimension, Level]:
        """Where each limited dimension stands at `now` (seconds)."""
        at = self._tick(now)
        return {name: _level(gauge, at) for name, gauge in self._gauges.items()}


def _level(gauge: Gauge, at: int) -> Level:
    used = gauge.used(at)
    return Level(gauge.limit, used, max(0, gauge.limit - used), gauge.reset(at) / MICROSECONDS)
