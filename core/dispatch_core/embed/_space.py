"""A name for the vector space of a framework's embedder, made of all its settings that may change what it returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dispatch_core.keys import digest

_SHOWN = 8
_IRRELEVANT = (
    *("key", "secret", "password", "token", "credential", "profile", "header", "organization", "user", "region"),
    *("timeout", "retr", "proxy", "client", "limiter", "callback", "batch", "chunk", "worker", "thread", "parallel"),
    *("progress", "verbose", "cache", "device", "stream", "warn"),
)
"""Parts of the names of settings that say who asks, by which way, or how fast: not what comes back."""


def space_of(kind: str, name: str, dimensions: int | None, settings: Mapping[str, Any]) -> str:
    """``kind:name``, the dimensions if they were chosen, and a digest of the settings that matter.

    Settings that are no plain values are left out. Anything else counts as relevant: a name too many makes an answer
    be asked once more, a name too few compares vectors of two spaces.
    """
    relevant = _relevant(settings)
    parts = [kind, name or "unnamed"]
    if dimensions:
        parts.append(str(dimensions))
    if relevant:
        parts.append(digest("space", json.dumps(relevant, sort_keys=True))[:_SHOWN])
    return ":".join(parts)


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, given in settings.items():
        if name.startswith("_") or any(part in name.casefold() for part in _IRRELEVANT):
            continue
        nested = isinstance(given, Mapping)
        value = _relevant({str(key): inner for key, inner in given.items()}) if nested else given
        # What is off or empty is left out: a new version's new switches, off at first, change no name.
        if _plain(value) and value:
            kept[name] = value
    return kept


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    return isinstance(value, str | int | float | bool)
