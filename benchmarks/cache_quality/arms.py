"""The policies that are compared, and each one's sweep from strict to loose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dispatch_core.consensus import Consensus
from dispatch_core.policy import Guarded, Policy, Threshold


@dataclass(frozen=True, slots=True)
class Arm:
    """A family of policies along one parameter. ``default`` is the setting whose decisions are timed."""

    title: str
    parameter: str
    make: Callable[[float], Policy]
    default: float
    sweep: Sequence[float]


_THRESHOLDS = (0.98, 0.95, 0.92, 0.9, 0.85, 0.8)

ARMS: Mapping[str, Arm] = {
    "threshold": Arm("Threshold", "threshold", Threshold, 0.92, _THRESHOLDS),
    "guarded": Arm("Guarded", "threshold", Guarded, 0.92, _THRESHOLDS),
    "consensus": Arm("Consensus", "threshold", Consensus, 0.92, (0.98, 0.96, 0.94, 0.92, 0.9, 0.88)),
}
