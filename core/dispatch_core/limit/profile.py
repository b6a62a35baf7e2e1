"""How providers count, as data. A profile says what is charged, over which time, and what the headers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dispatch_core.errors import ConfigError
from dispatch_core.limit.headers import HeaderStyle

Counting = Literal["window", "bucket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One way in which a provider counts.

    ``counting``: ``"window"`` charges every call for a whole window, which is safe towards any server; ``"bucket"``
    mirrors a server whose level refills continuously. ``burst``: seconds' worth of quota that may be spent at once
    after a quiet time. ``catch_up``: how much faster than its limit a window may be filled while it has room, as a
    multiple of the free share; 0 where a server also counts shorter slices. ``request_share``: of the limit on
    requests, what may be used where requests are counted in slices of a second. ``headers``: the family of headers
    that tell where the quota stands. ``counts_failures``: a refused request still counts as a request.
    """

    name: str
    counting: Counting
    burst: float = 2.0
    catch_up: float = 0.0
    request_share: float = 1.0
    headers: HeaderStyle | None = None
    counts_failures: bool = False


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(name="window", counting="window", catch_up=0.1, headers="openai"),
            Profile(name="bucket", counting="bucket", headers="openai"),
            Profile(name="openai", counting="bucket", headers="openai", counts_failures=True),
            Profile(name="anthropic", counting="bucket", headers="anthropic"),
            # Tokens are counted in whole minutes, requests in slices of a second (or of ten).
            Profile(name="azure", counting="window", burst=0.6, request_share=0.85, headers="openai"),
            Profile(name="deepseek", counting="window"),
            Profile(name="gemini", counting="window"),
        )
    }
)


def profile_named(name: str | Profile) -> Profile:
    """The profile of this name; raises `ConfigError` naming those that exist."""
    if isinstance(name, Profile):
        return name
    if not isinstance(name, str) or name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: there are {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
