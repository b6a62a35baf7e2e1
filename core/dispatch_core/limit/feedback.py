"""What a provider's error says about its limits, read by shape: SDKs change their HTTP library and their classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dispatch_core.types import Feedback

_NEVER_RETRY = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


def feedback_of(error: BaseException) -> Feedback | None:
    """The feedback of an SDK's exception: any with ``status_code`` and ``response.headers``. None if it has none.

    A spent budget also comes as 429; no pause mends it, so it is no feedback about a rate.
    """
    response: Any = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if not isinstance(status, int) or getattr(error, "code", None) in _NEVER_RETRY:
        return None
    headers = getattr(response, "headers", None)
    plain = {str(k).lower(): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {}
    return Feedback(status, retry_after(plain), plain)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``retry-after``; nonsense, negative or endless values are None."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < math.inf:
            return seconds
    return None
