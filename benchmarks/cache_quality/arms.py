"""The policies that are compared: those of ``dispatcher calibrate``, at fewer settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dispatch_core.calibrate.families import FAMILIES, Family

_THRESHOLDS = (0.98, 0.95, 0.92, 0.9, 0.85, 0.8)
_SWEEPS = {"threshold": _THRESHOLDS, "guarded": _THRESHOLDS, "consensus": (0.98, 0.96, 0.94, 0.92, 0.9, 0.88)}

ARMS: Mapping[str, Family] = {
    name: replace(family, sweep=_SWEEPS.get(name, family.sweep)) for name, family in FAMILIES.items()
}
"""In each, the default is the setting whose decisions are timed."""
