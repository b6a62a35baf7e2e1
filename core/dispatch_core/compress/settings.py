"""Settings that several compressors share, checked when they are given. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import get_args

from dispatch_core.errors import ConfigError
from dispatch_core.messages import Role


def check_share(share: float) -> float:
    """A share of tokens, above 0 and at most 1."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"share is the part of the tokens to keep, above 0 and at most 1, got {share!r}")
    return float(share)


def check_tokens(tokens: int, name: str = "tokens") -> int:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ConfigError(f"{name} is a number of tokens, at least 1, got {tokens!r}")
    return tokens


def check_budget(budget: int | None) -> int | None:
    return None if budget is None else check_tokens(budget, "budget")


def check_roles(roles: Collection[Role]) -> frozenset[Role]:
    known = get_args(Role)
    if isinstance(roles, str) or not all(role in known for role in roles):
        raise ConfigError(f"roles are some of {', '.join(known)}, got {roles!r}")
    return frozenset(roles)
