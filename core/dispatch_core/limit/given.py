"""A limiter that exists, or the settings of a new one: what the fronts' rate limiters are given."""

from __future__ import annotations

from typing import Any

from dispatch_core.errors import ConfigError
from dispatch_core.limit.limiter import TokenLimiter


def limiter_of(limiter: TokenLimiter | None, **settings: Any) -> TokenLimiter:
    """The given limiter, or a new one of these settings. Raises `ConfigError` for both at once."""
    named = {name: value for name, value in settings.items() if value is not None}
    if limiter is None:
        return TokenLimiter(**named)
    if named:
        raise ConfigError("give either a limiter or its settings, not both")
    return limiter
