"""What goes wrong on demand: which request a fault strikes, and what it does to it. No I/O.

A fault is written in one line, the same on the command line (``--fault``) and in the header of a single request
(``x-simulated-fault``): its kind, then its settings, ``stall; seconds=5; after_tokens=8``. Over HTTP it is an object
of the same names.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

from dispatch_core.errors import ConfigError
from dispatch_core.simulate.text import Pace

Kind = Literal["rate_limit", "error", "stall", "break", "slow_first_token"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and with whom.

    ====================  ===========================================================================================
    ``rate_limit``        429 whatever the quota says; come back after ``seconds`` (None: no such header)
    ``error``             ``status``; once ``after_tokens`` of a stream have left, an event of the stream tells it
    ``stall``             silence for ``seconds`` (None: until the client leaves) once ``after_tokens`` are made
    ``break``             the connection ends once ``after_tokens`` are made
    ``slow_first_token``  the first token comes ``seconds`` later
    ====================  ===========================================================================================

    It strikes a ``share`` of the requests to a model, at most ``count`` of them (None: no bound), for ``lasting``
    seconds from when it was set (None: until it is replaced). ``after_tokens`` are completion tokens of each choice;
    an answer that is shorter is struck at its end. A ``rate_limit`` charges the quota nothing; the others strike a
    request that was admitted, and it pays for its prompt and for what was produced.
    """

    kind: Kind
    share: float = 1.0
    count: int | None = None
    lasting: float | None = None
    status: int = 500
    seconds: float | None = None
    after_tokens: int = 0

    def __post_init__(self) -> None:
        _check(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}", self.kind)
        _check(_number(self.share) and 0 < self.share <= 1, "share must be above 0 and at most 1", self.share)
        _check(self.count is None or _whole(self.count, 1), "count must be a whole number of at least 1", self.count)
        _check(_whole(self.status, 500) and self.status <= 599, "status must be from 500 to 599", self.status)
        _check(_whole(self.after_tokens, 0), "after_tokens must be a whole number of at least 0", self.after_tokens)
        for name in ("lasting", "seconds"):
            value = getattr(self, name)
            told = value is None or (_number(value) and 0 <= value < math.inf)
            _check(told, f"{name} must be a finite number of at least 0", value)
        timed = self.kind != "slow_first_token" or self.seconds is not None
        _check(timed, "slow_first_token needs seconds", self.seconds)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Fault:
        """The fault that an object describes. Raises `ConfigError` naming what is wrong with it."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(map(str, settings)) - names)
        _check(not unknown, f"a fault has {', '.join(sorted(names))}", ", ".join(unknown))
        _check("kind" in settings, "a fault needs a kind", dict(settings))
        return cls(**settings)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault that a line describes. Raises `ConfigError` naming what is wrong with it."""
        kind, *rest = (part.strip() for part in text.split(";"))
        settings: dict[str, Any] = {"kind": kind}
        for setting in filter(None, rest):
            name, equals, value = (part.strip() for part in setting.partition("="))
            _check(bool(equals), "a setting of a fault is written name=value", setting)
            settings[name] = _value(name, value)
        return cls.of(settings)

    def slowed(self, pace: Pace) -> Pace:
        """The pace of an answer that this fault strikes."""
        return replace(pace, first=pace.first + (self.seconds or 0.0)) if self.kind == "slow_first_token" else pace


class Faults:
    """The faults that are set, and the dice that say whom they strike. Thread-safe.

    The dice depend on ``seed`` and on the order in which requests arrive, so a request that is struck may be tried
    again.
    """

    def __init__(self, faults: Sequence[Fault] = (), *, seed: int = 0, now: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._dice = random.Random(f"{seed}:faults")
        self._set: list[_Armed] = []
        self.replace(faults, now)

    def replace(self, faults: Sequence[Fault], now: float) -> None:
        """Set `faults` instead of those before; `now` is the instant (seconds) that ``lasting`` counts from."""
        with self._lock:
            self._set = [
                _Armed(fault, math.inf if fault.lasting is None else now + fault.lasting) for fault in faults
            ]

    def strike(self, now: float) -> Fault | None:
        """The fault that a request arriving at `now` (seconds) meets: the first that applies and whose dice fall."""
        with self._lock:
            for armed in self._set:
                if armed.live(now) and self._dice.random() < armed.fault.share:
                    armed.struck += 1
                    return armed.fault
            return None

    def live(self, now: float) -> list[Fault]:
        """The faults that may still strike at `now` (seconds)."""
        with self._lock:
            return [armed.fault for armed in self._set if armed.live(now)]


@dataclass(slots=True)
class _Armed:
    fault: Fault
    until: float
    struck: int = 0

    def live(self, now: float) -> bool:
        return now < self.until and (self.fault.count is None or self.struck < self.fault.count)


def _check(condition: bool, expected: str, found: object) -> None:
    if not condition:
        raise ConfigError(f"{expected}, not {found!r}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _value(name: str, written: str) -> float:
    try:
        return cast(float, int(written)) if written.lstrip("-").isdigit() else float(written)
    except ValueError as error:
        raise ConfigError(f"{name} of a fault must be a number, not {written!r}") from error
