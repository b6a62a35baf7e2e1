"""What a provider's error says about its limits, read by shape: SDKs change their HTTP library and their classes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dispatch_core.limit import headers as quota_headers
from dispatch_core.limit.verdict import SPENT_NAMES, Refusal, verdict_of
from dispatch_core.types import Feedback


def feedback_of(error: BaseException, *, now: float | None = None) -> Feedback | None:
    """The feedback of an SDK's exception: any with a status and, if it has them, ``response.headers``. Else None.

    A spent budget also comes as 429; no pause mends it, so it is no feedback about a rate. The pause may be in the
    headers or in the error's ``body`` (Google's ``details``); the response itself is not read, it may be streaming.
    ``now`` is in Unix seconds, by default the wall clock's.
    """
    response: Any = getattr(error, "response", None)
    code = getattr(error, "code", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None) or _status_in(code)
    if not isinstance(status, int) or (isinstance(code, str) and code in SPENT_NAMES):
        return None
    headers = getattr(response, "headers", None)
    plain = {str(k).lower(): str(v) for k, v in headers.items()} if isinstance(headers, Mapping) else {}
    now = time.time() if now is None else now
    verdict = verdict_of(status, plain, _body_of(error), now=now)
    if verdict is None:
        return Feedback(status, quota_headers.retry_after(plain, now=now), plain)
    if verdict.kind is Refusal.SPENT:
        return None
    return Feedback(status, verdict.retry_after, plain, verdict.dimension)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from now to wait by ``retry-after-ms`` or ``retry-after``; nonsense, negative or endless is None."""
    return quota_headers.retry_after(headers, now=time.time())


def _status_in(code: object) -> int | None:
    """Google's errors keep the status of the response in ``code``, where OpenAI's have a word."""
    return int(code) if isinstance(code, int) and 400 <= code <= 599 else None


def _body_of(error: BaseException) -> object:
    for name in ("body", "details"):
        told = getattr(error, name, None)
        if isinstance(told, dict | list | str | bytes):
            return told
    return None
