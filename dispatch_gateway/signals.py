"""What the headers of an answer say about the cache (RFC 9211) and the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dispatch_core.limit import TokenLimiter
from dispatch_core.types import Match

_NAME = "dispatch"


def hit(match: Match, now: float) -> dict[str, str]:
    """The headers of an answer from the cache; ``now`` is in Unix seconds."""
    entry = match.entry
    if match.kind == "flight":
        status = f"{_NAME}; fwd=miss; collapsed"
    else:
        fresh_until = entry.expires if entry.stale is None else entry.stale
        left = "" if fresh_until is None else f"; ttl={round(fresh_until - now)}"
        status = f'{_NAME}; hit{left}; detail="{match.kind}"'
    return {
        "cache-status": status,
        "age": str(max(0, int(now - entry.created))),
        "x-dispatch-similarity": f"{match.score:.4f}",
        "x-dispatch-cache-id": entry.id,
        "x-dispatch-tokens-saved": str(entry.usage.total),
    }


def forwarded(why: str, *, stored: bool = False, detail: str = "", id: str = "") -> dict[str, str]:
    """The headers of an answer from an upstream: ``why`` is "miss", "bypass", "request" or "stale"."""
    parts = [_NAME, f"fwd={why}"]
    if stored:
        parts.append("stored")
    if detail:
        parts.append(f'detail="{detail}"')
    return {"cache-status": "; ".join(parts), **({"x-dispatch-cache-id": id} if id and stored else {})}


def shortened(prompt: tuple[int, int] | None) -> dict[str, str]:
    """The tokens of a prompt before and after it was made shorter, as an item with a parameter (RFC 9651)."""
    return {} if prompt is None else {"x-dispatch-compressed": f"{prompt[0]};to={prompt[1]}"}


def retry(seconds: float) -> dict[str, str]:
    """When to come back: whole seconds for all, milliseconds for those who can read them."""
    seconds = _soon(seconds)
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}


_TOLD = ("requests", "tokens")
_OTHERS = {
    "concurrency": "requests",
    "requests_per_day": "requests",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "tokens_per_day": "tokens",
}
"""What the others count, for which OpenAI has no headers."""


def limits(limiters: Sequence[TokenLimiter], retry_after: float) -> dict[str, str]:
    """OpenAI's ``x-ratelimit-*`` of requests and tokens: of several limits, those with the least left. Where none is
    counted by the minute, those of the others; where there is none at all, that nothing is left for now."""
    gauges = [one for limiter in limiters for one in limiter.stats().gauges.items()]
    counted = [(name, gauge) for name, gauge in gauges if name in _TOLD]
    counted = counted or [(_OTHERS[name], gauge) for name, gauge in gauges if name in _OTHERS]
    reset = f"{max(0.001, _soon(retry_after)):.3f}s"
    if not counted:
        return {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    told: dict[str, str] = {}
    least: dict[str, float] = {}
    for name, gauge in counted:
        left = max(0.0, gauge.limit * gauge.share - gauge.used)
        if left < least.get(name, math.inf):
            least[name] = left
            told[f"x-ratelimit-limit-{name}"] = str(int(gauge.limit))
            told[f"x-ratelimit-remaining-{name}"] = str(int(left))
            told[f"x-ratelimit-reset-{name}"] = reset
    return told


def busy(limiters: Sequence[TokenLimiter], retry_after: float) -> dict[str, str]:
    """All that goes with a 429."""
    return {**limits(limiters, retry_after), **retry(retry_after)}


def _soon(seconds: float) -> float:
    return seconds if 0 <= seconds < math.inf else 1.0
