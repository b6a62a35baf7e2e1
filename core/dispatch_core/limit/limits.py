"""The limits that somebody configured: checked, turned into gauges, and what a call charges to each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dispatch_core.errors import ConfigError, RequestTooLarge
from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.day import DayGauge
from dispatch_core.limit.profile import Profile
from dispatch_core.limit.quota import Charge, Gauge, Quota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log, WindowGauge
from dispatch_core.types import Cost, Usage

Unit = Literal["request", "token", "input", "output", "slot"]
Burst = float | Literal["auto"]

_INF = math.inf
_PAD, _MOST_PAD = 0.2, 0.1
_MARGIN = 0.5
_ONE: frozenset[Unit] = frozenset(("request", "slot"))
_NAMES: Mapping[str, tuple[str, Unit]] = {
    "rpm": ("requests", "request"),
    "tpm": ("tokens", "token"),
    "itpm": ("input_tokens", "input"),
    "otpm": ("output_tokens", "output"),
    "rpd": ("requests_per_day", "request"),
    "tpd": ("tokens_per_day", "token"),
    "concurrency": ("concurrency", "slot"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``rpm``, ``tpm``, ``itpm``, ``otpm`` per minute, ``rpd``, ``tpd`` per day, ``concurrency`` at once; see
    `TokenLimiter`. Raises `ConfigError`."""

    profile: Profile
    window: float = 60.0
    burst: Burst = "auto"
    rpm: float | None = None
    tpm: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    rpd: float | None = None
    tpd: float | None = None
    concurrency: float | None = None
    units: tuple[Unit, ...] = field(init=False)
    caps: tuple[float, ...] = field(init=False)
    _charged: tuple[tuple[Unit, float], ...] = field(init=False)
    _usual: float = field(init=False)

    def __post_init__(self) -> None:
        _positive("window", self.window)
        if self.burst != "auto":
            _positive("burst", self.burst)
        given = [name for name in _NAMES if getattr(self, name) is not None]
        if not given:
            raise ConfigError("a limiter needs rpm, tpm or both, or another limit: " + ", ".join(_NAMES))
        for name in given:
            _positive(name, getattr(self, name))
        object.__setattr__(self, "units", tuple(_NAMES[name][1] for name in given))
        object.__setattr__(self, "caps", tuple(self._cap(name) for name in given))
        # Requests and tokens are what is limited nearly everywhere: such calls of up to so many tokens are quick.
        object.__setattr__(self, "_usual", self.caps[1] if self.units == ("request", "token") else -1.0)
        object.__setattr__(self, "_charged", tuple(zip(self.units, self.caps, strict=True)))

    def quota(self) -> Quota:
        """Fresh gauges of these limits."""
        given = [name for name in _NAMES if getattr(self, name) is not None]
        log = Log(padded(self.window))
        return Quota([self._gauge(name, index, log) for index, name in enumerate(given)], log)

    def charge(self, cost: Cost, estimator: TokenEstimator) -> Charge:
        """What a call with this cost is charged at first. Raises `RequestTooLarge`."""
        given, asked = cost.input_tokens, cost.output_tokens
        if given < 0 or asked < 0:
            raise ConfigError(f"a cost cannot be negative: {cost}")
        tokens = given + asked
        amounts = (1.0, float(tokens)) if tokens <= self._usual else self._amounts(cost, estimator)
        if cost.weight < 1.0:
            return Charge(amounts)
        return Charge(amounts, (estimator.spread(cost.model) * given) ** 2)

    def _amounts(self, cost: Cost, estimator: TokenEstimator) -> Sequence[float]:
        given, asked = cost.input_tokens, cost.output_tokens
        amounts = []
        for unit, cap in self._charged:
            if unit in _ONE:
                amounts.append(1.0)
            elif unit == "token":
                amounts.append(float(given + asked) if given + asked <= cap else _clamped(cost, cap))
            elif unit == "output":
                # Not what may be produced is charged here, but what is: a typical answer.
                amounts.append(min(asked, estimator.typical_output(cost.model), cap))
            elif given <= cap:
                amounts.append(float(given))
            else:
                raise RequestTooLarge(given, int(cap))
        return amounts

    def settled(self, usage: Usage) -> Sequence[float]:
        """What the call came to be charged."""
        given, made = usage.input_tokens, usage.output_tokens
        if not (0 <= given < _INF and 0 <= made < _INF):
            given, made = (n if 0 <= n < _INF else 0 for n in (given, made))
        if self._usual >= 0.0:
            return 1.0, float(given + made)
        amounts = []
        for unit in self.units:
            if unit in _ONE:
                amounts.append(1.0)
            elif unit == "token":
                amounts.append(float(given + made))
            else:
                amounts.append(float(given if unit == "input" else made))
        return amounts

    def refused(self) -> list[float]:
        """What a call is charged that the provider refused."""
        counted = 1.0 if self.profile.counts_failures else 0.0
        return [counted if unit == "request" else 0.0 for unit in self.units]

    def _cap(self, name: str) -> float:
        value = float(getattr(self, name))
        unit = _NAMES[name][1]
        cap = value * self.window / 60.0 if name in ("rpm", "tpm", "itpm", "otpm") else value
        if unit in ("request", "slot") and cap < 1:
            over = f" over {self.window} s" if name == "rpm" else ""
            raise ConfigError(f"{name}={value}{over} allows not a single request")
        return cap

    def _gauge(self, name: str, index: int, log: Log) -> Gauge:
        title, unit = _NAMES[name]
        cap = self.caps[index]
        if unit == "slot":
            return SlotGauge(title, cap)
        if name in ("rpd", "tpd"):
            return DayGauge(title, cap, index=index)
        profile, window = self.profile, self.window
        seconds = profile.burst if self.burst == "auto" else self.burst
        burst = min(cap, max(1.0, cap / window * seconds))
        if profile.counting == "bucket":
            margin = cap / window * min(_MARGIN, window / 10)
            counted = unit in ("token", "input")
            bucket = BucketGauge(title, cap, window=window, burst=burst, margin=margin, estimated=counted)
            log.gauges += (bucket,)
            return bucket
        share = profile.request_share if unit == "request" else 1.0
        return WindowGauge(
            title,
            max(1.0, cap * share),
            configured=cap,
            window=window,
            log=log,
            burst=max(1.0, burst if share == 1.0 else cap / window * (1.0 - share)),
            index=index,
            catch_up=profile.catch_up if self.burst == "auto" else 0.0,
            estimated=unit in ("token", "input"),
        )


def padded(window: float) -> float:
    """For how many seconds a window counts what the provider counts for ``window``."""
    return window + min(_PAD, _MOST_PAD * window)


def _clamped(cost: Cost, cap: float) -> float:
    """Only a guess of the answer's length may be cut: a guess must not lock anybody out."""
    asked = cost.input_tokens if cost.guess else cost.tokens
    if asked > cap:
        raise RequestTooLarge(asked, int(cap))
    return float(int(cap))


def _positive(name: str, value: object) -> None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not fine:
        raise ConfigError(f"{name} must be a positive, finite number, got {value!r}")
