"""Four ways in which a provider counts requests and tokens: pure arithmetic, time as an argument, in seconds.

On arrival a request is charged the prompt and ``max_tokens``; when it is done, the charge becomes what it really
used. A rejected request costs nothing. What reconciling does is a matter of style:

=========  ==================================================  ================================================
style      counts                                              reconciles
=========  ==================================================  ================================================
sliding    every charge for 60 s from its arrival              in place, at the arrival
bucket     against one minute's worth, refilled continuously   by a credit on completion, never above full
second     against one second's worth, refilled continuously;  by a credit on completion, never above full
           a larger request is let in when the bucket is
           full and leaves a debt
slices     tokens in whole minutes, requests in whole seconds  in place while the minute lasts, then not at all
=========  ==================================================  ================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from dispatch_core.simulate.quota import MICROSECONDS, Bucket, Dimension, FixedWindow, Gauge, Quota, SlidingLog

Style = Literal["sliding", "bucket", "second", "slices"]
STYLES: tuple[Style, ...] = get_args(Style)

TITLES: Mapping[Style, str] = {
    "sliding": "sliding 60 s window",
    "bucket": "continuous bucket of one minute",
    "second": "bucket of one second",
    "slices": "fixed minute of tokens, 1 s slices of requests",
}

_SECOND = MICROSECONDS
_MINUTE = 60 * MICROSECONDS


class ShallowBucket(Bucket):
    """A bucket that lets a request larger than itself in when it is full, as a debt that the refill pays."""

    def wait(self, amount: int, now: int) -> int | None:
        return super().wait(min(amount, self.limit), now)


class ProviderQuota(Quota):
    """A `Quota` whose dimensions may be counted in different ways. Limits are per minute."""

    def __init__(self, style: Style, *, rpm: int, tpm: int, start: float = 0.0) -> None:
        super().__init__(start=start)
        self._gauges.update(gauges(style, rpm=rpm, tpm=tpm))


def gauges(style: Style, *, rpm: int, tpm: int) -> dict[Dimension, Gauge]:
    match style:
        case "sliding":
            return {"requests": SlidingLog(rpm, _MINUTE), "tokens": SlidingLog(tpm, _MINUTE)}
        case "bucket":
            return {"requests": Bucket(rpm, _MINUTE), "tokens": Bucket(tpm, _MINUTE)}
        case "second":
            return {"requests": Bucket(rpm, _SECOND), "tokens": ShallowBucket(tpm, _SECOND)}
        case "slices":
            return {"requests": FixedWindow(rpm, _SECOND), "tokens": FixedWindow(tpm, _MINUTE)}
