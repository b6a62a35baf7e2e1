"""How long an answer may be served. Pure; all times are seconds, instants are Unix seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dispatch_core.errors import ConfigError
from dispatch_core.types import Entry

_WORTHWHILE = 0.1
"""The share of a life by which reading must prolong it to be worth a write."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """An entry lives for ``ttl`` seconds from its storing on, whether it is read or not; None lives for ever.

    ``jitter`` shortens each life by a share of its own of at most so much, so that what was stored together does not
    end together. For ``stale`` seconds more, an answer is still served, but only while somebody asks the model anew:
    the first who comes then is that somebody, the others do not wait for him.

    With ``max_age``, reading prolongs a life: it ends ``ttl`` seconds after the last hit, but ``max_age`` seconds
    after the storing at the latest. Raises `ConfigError` for what makes no sense.
    """

    ttl: float | None = None
    jitter: float = 0.1
    stale: float = 0.0
    max_age: float | None = None

    def __post_init__(self) -> None:
        if self.ttl is not None and not 0 < self.ttl < math.inf:
            raise ConfigError(f"ttl is a positive number of seconds or None, got {self.ttl}")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter is a share of the ttl in [0, 1), got {self.jitter}")
        if not 0 <= self.stale < math.inf:
            raise ConfigError(f"stale is a number of seconds, got {self.stale}")
        if self.max_age is not None and not (self.ttl is not None and self.ttl <= self.max_age < math.inf):
            raise ConfigError(f"max_age is a number of seconds not below the ttl, got {self.max_age}")
        if self.stale and (self.ttl is None or self.max_age is not None):
            raise ConfigError("stale answers need a ttl, and one that reading does not prolong")

    def ends(self, id: str, now: float) -> tuple[float | None, float | None]:
        """When an entry that is stored now becomes stale, and when it expires; None for never."""
        if self.ttl is None:
            return None, None
        fresh_until = now + self.ttl * (1.0 - self.jitter * _share(id))
        return (fresh_until, fresh_until + self.stale) if self.stale else (None, fresh_until)

    def longest(self, now: float) -> float | None:
        """When the longest life of all that was stored until now is over; None for never."""
        return None if self.ttl is None else max(now + self.ttl + self.stale, now + (self.max_age or 0.0))

    def prolonged(self, entry: Entry, now: float) -> float | None:
        """When an entry that is served now is to expire, or None if that is no worthwhile change."""
        if self.max_age is None or self.ttl is None or entry.expires is None:
            return None
        until = min(now + self.ttl, entry.created + self.max_age)
        return until if until - entry.expires >= _WORTHWHILE * self.ttl else None


def _share(id: str) -> float:
    """A number in [0, 1) that is the entry's own: the same in every process, and without a source of chance."""
    return int(id[:8], 16) / 2**32
