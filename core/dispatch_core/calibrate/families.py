"""The policies that are compared, and each one's settings from strict to loose. Another is one more line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from dispatch_core.bounded import ErrorBounded
from dispatch_core.consensus import Consensus
from dispatch_core.equivalence import Equivalence, same_entry
from dispatch_core.guards import Guard, refusal
from dispatch_core.policy import Guarded, Policy, Threshold

_PAIRS_REMEMBERED = 2**20
"""Pairs of texts, at 160 bytes each: about as many as the settings share in a log of 100,000 questions."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of policy along one parameter.

    ``default`` is the setting of which the library itself makes use. ``alone`` says that one neighbour is enough for
    a decision: others cannot be judged by pairs.
    """

    kind: type[Any]
    parameter: str
    default: float
    sweep: Sequence[float]
    alone: bool = True

    @property
    def title(self) -> str:
        return self.kind.__name__

    def make(self, setting: float) -> Policy:
        policy: Policy = self.kind(**{self.parameter: setting})
        return policy

    def code(self, setting: float) -> str:
        """The policy in Python.

        >>> FAMILIES["consensus"].code(0.85)
        'Consensus(threshold=0.85)'
        """
        return f"{self.title}({self.parameter}={setting:g})"


_THRESHOLDS = (0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.75, 0.7)

FAMILIES: Mapping[str, Family] = {
    "threshold": Family(Threshold, "threshold", 0.92, _THRESHOLDS),
    "guarded": Family(Guarded, "threshold", 0.92, _THRESHOLDS),
    "consensus": Family(Consensus, "threshold", 0.92, _THRESHOLDS, alone=False),
    "bounded": Family(ErrorBounded, "max_error", 0.01, (0.002, 0.005, 0.01, 0.02, 0.05), alone=False),
}


def quickened(policy: Any, same: Equivalence) -> Any:
    """A policy of equal decisions: guards are asked once about a pair, and ``same`` in the place of `same_entry`."""
    if isinstance(policy, ErrorBounded):
        return ErrorBounded(policy.max_error, quickened(policy.base, same))
    names = {field.name for field in fields(policy)} if is_dataclass(policy) else set()
    changes: dict[str, Any] = {}
    if "guards" in names:
        changes["guards"] = (_remembered(tuple(policy.guards)),)
    if "same" in names and policy.same is same_entry:
        changes["same"] = same
    return replace(policy, **changes) if changes else policy


@lru_cache(maxsize=4)
def _remembered(guards: tuple[Guard, ...]) -> Guard:
    """All guards as one. Every setting of a policy asks about much the same pairs."""

    @lru_cache(maxsize=_PAIRS_REMEMBERED)
    def guard(asked: str, stored: str) -> str | None:
        return refusal(asked, stored, guards)

    return guard
