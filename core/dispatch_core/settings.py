"""What a cache may be told. A mistake is a `ConfigError` at once, not a failure of somebody's call later."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatch_core.eligible import Eligibility
from dispatch_core.errors import ConfigError
from dispatch_core.lifetime import Lifetime
from dispatch_core.policy import Policy


def checked_policy(policy: Policy) -> Policy:
    if isinstance(policy, type) or not callable(getattr(policy, "decide", None)):
        raise ConfigError(f"policy is an object such as Consensus(0.92), got {policy!r}")
    return policy


def checked_eligibility(eligibility: Eligibility) -> Eligibility:
    if not isinstance(eligibility, Eligibility):
        raise ConfigError(f"eligibility is an Eligibility, got {eligibility!r}")
    return eligibility


def checked_lifetime(ttl: Lifetime | float | None) -> Lifetime:
    if isinstance(ttl, Lifetime):
        return ttl
    if ttl is not None and not isinstance(ttl, int | float):
        raise ConfigError(f"ttl is a number of seconds, a Lifetime or None, got {ttl!r}")
    return Lifetime(ttl)


def checked_tags(tags: Collection[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise ConfigError(f"tags are a collection of strings, not one string: [{tags!r}]")
    # Read once: a generator would be empty the second time.
    listed = tuple(tags)
    if not all(isinstance(tag, str) for tag in listed):
        raise ConfigError(f"tags are strings, got {listed!r}")
    return listed


def checked_sources(sources: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not all(isinstance(part, str) for source in sources.items() for part in source):
        raise ConfigError(f"names and versions of sources are strings, got {dict(sources)!r}")
    return tuple(sources.items())


def wanted_tags(tags: Collection[str] | None) -> dict[str, Collection[str]]:
    """What to tell a store to clear; None for all entries, whatever their tags."""
    if tags is None:
        return {}
    wanted = checked_tags(tags)
    if not wanted:
        raise ConfigError("no tags to clear: give at least one, or None for all entries")
    return {"tags": wanted}
