"""How often a hit is wrong, by how strict a threshold would still serve it: measured once per encoder, offline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dispatch_core.errors import ConfigError

FLOOR, STEP = 0.8, 0.01
STEPS = 20
"""A curve has a rate for each hundredth of strictness from 0.8 to 1; what is less strict is never served."""


def step_of(level: float) -> int:
    """Which step a strictness from `FLOOR` to 1 belongs to. Rounded, so that 0.92 is not the step below it."""
    return min(STEPS - 1, max(0, math.floor((level - FLOOR) / STEP + 1e-6)))


def strict_step_of(threshold: float) -> int:
    """The first step that is wholly as strict as a threshold."""
    return min(STEPS - 1, max(0, math.ceil((threshold - FLOOR) / STEP - 1e-6)))


def level_of(step: int) -> float:
    """The lowest strictness of a step."""
    return round(FLOOR + step * STEP, 6)


@dataclass(frozen=True, slots=True)
class Curve:
    """Error rates of each path to a hit ("near-duplicate", "consensus", ...), one for each step of strictness.

    A path that was not calibrated is taken for the worst that was. Raises `ConfigError` for anything but rates.
    """

    encoder: str
    rates: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for path, rates in self.rates.items():
            if len(rates) != STEPS or not all(0.0 < rate <= 1.0 for rate in rates):
                raise ConfigError(f"a curve has {STEPS} rates in (0, 1] for each path, {path!r} has others")
        if not self.rates:
            raise ConfigError("a curve has rates for at least one path")

    def of(self, path: str) -> Sequence[float]:
        known = self.rates.get(path)
        return known if known is not None else [max(rates) for rates in zip(*self.rates.values(), strict=True)]

    def to_json(self) -> str:
        return json.dumps({"encoder": self.encoder, "rates": {path: list(r) for path, r in self.rates.items()}})

    @classmethod
    def from_json(cls, text: str) -> Curve:
        """Raises `ConfigError` for anything else."""
        try:
            data = json.loads(text)
            return cls(
                str(data["encoder"]), {str(path): [float(r) for r in rs] for path, rs in data["rates"].items()}
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError("not a calibration curve: an object with encoder and rates is expected") from error


ALL_MINILM_L6_V2 = Curve(
    "all-MiniLM-L6-v2",
    {
        "near-duplicate": (
            *(0.27, 0.26, 0.22, 0.19, 0.19, 0.17, 0.17, 0.09, 0.09, 0.09),
            *(0.052, 0.052, 0.027, 0.027, 0.027, 0.027, 0.027, 0.011, 0.0034, 0.0034),
        ),
        "consensus": (
            *(0.5, 0.5, 0.5, 0.5, 0.21, 0.13, 0.1, 0.094, 0.072, 0.039),
            *(0.02, 0.018, 0.015, 0.0083, 0.0072, 0.0049, 0.0042, 0.0042, 0.0015, 0.0015),
        ),
        "guarded": (
            *(0.13, 0.12, 0.12, 0.094, 0.094, 0.08, 0.08, 0.058, 0.043, 0.043),
            *(0.043, 0.026, 0.026, 0.019, 0.017, 0.017, 0.017, 0.012, 0.005, 0.005),
        ),
        "above-threshold": (
            *(0.14, 0.14, 0.14, 0.085, 0.085, 0.085, 0.076, 0.076, 0.076, 0.056),
            *(0.052, 0.052, 0.047, 0.046, 0.046, 0.046, 0.046, 0.046, 0.046, 0.046),
        ),
    },
)
"""Measured on half the questions of BANKING77 and CLINC150 and on this project's own."""
