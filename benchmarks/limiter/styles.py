"""The four ways of counting that are compared: the styles of `dispatch_core.simulate.quota` that providers have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Style = Literal["sliding", "bucket", "second", "slices"]
STYLES: tuple[Style, ...] = get_args(Style)

TITLES: Mapping[Style, str] = {
    "sliding": "sliding 60 s window",
    "bucket": "continuous bucket of one minute",
    "second": "bucket of one second",
    "slices": "fixed minute of tokens, 1 s slices of requests",
}
