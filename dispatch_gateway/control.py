"""What a caller may tell the cache: ``Cache-Control``, the body's ``cache`` and ``x-dispatch-*`` headers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dispatch_gateway.errors import need

_LONGEST_NAME = 200
_MOST_TAGS = 16
_LONGEST, _SHORTEST = 1e9, 1e-3
"""Of times, in seconds: more is no age that a header may tell (RFC 8941), less is none at all."""


@dataclass(frozen=True, slots=True)
class Control:
    """``max_age`` and ``ttl`` are in seconds; ``namespace`` narrows the caller's own, ``threshold`` is at least the
    cache's; the prompt is sent ``whole``, not shortened."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    ttl: float | None = None
    namespace: str = ""
    threshold: float | None = None
    tags: tuple[str, ...] = ()
    whole: bool = False


DEFAULT = Control()


def control_of(headers: Mapping[str, str], body: Mapping[str, Any]) -> Control:
    """The stricter of what headers and body say. Raises `ApiError`."""
    told, asked = body.get("cache"), headers.get("cache-control")
    control = DEFAULT if asked is None else _of_header(asked)
    if told is not None:
        control = _of_body(told, control)
    for header, name in _SET_BY_HEADER.items():
        value = headers.get(header)
        if value is not None:
            control = _set(control, name, value, header)
    shorter = headers.get(_COMPRESSION)
    if shorter is not None:
        need(shorter.lower() in ("on", "off"), _COMPRESSION, "on or off")
        control = replace(control, whole=shorter.lower() == "off")
    return control


_COMPRESSION = "x-dispatch-compression"
_SET_BY_HEADER = {f"x-dispatch-{name}": name for name in ("namespace", "threshold", "tags")}


def _of_header(value: str) -> Control:
    directives = {}
    for part in value.lower().split(","):
        name, _, argument = part.strip().partition("=")
        directives[name] = argument.strip().strip('"')
    age = directives.get("max-age", "")
    return Control(
        no_cache="no-cache" in directives,
        no_store="no-store" in directives,
        only_if_cached="only-if-cached" in directives,
        # By the RFC, what makes no sense is as if it were stale.
        max_age=None if "max-age" not in directives else float(age) if age.isdecimal() and age.isascii() else 0.0,
    )


def _of_body(told: Any, control: Control) -> Control:
    need(isinstance(told, dict), "cache", "an object")
    for name, value in told.items():
        if value is not None:
            control = _set(control, str(name).replace("-", "_"), value, f"cache.{name}")
    return control


def _set(control: Control, name: str, value: Any, where: str) -> Control:
    change: dict[str, Any] = {}
    match name:
        case "no_cache" | "no_store" | "only_if_cached":
            need(isinstance(value, bool), where, "a boolean")
            change = {name: value or getattr(control, name)}
        case "max_age" | "s_maxage" | "s_max_age":
            age = _seconds(value, where)
            change = {"max_age": age if control.max_age is None else min(age, control.max_age)}
        case "ttl":
            ttl = _seconds(value, where)
            change = {"no_store": True} if ttl < _SHORTEST else {"ttl": ttl}
        case "namespace":
            need(isinstance(value, str) and len(value) <= _LONGEST_NAME, where, "a short text")
            change = {"namespace": value}
        case "threshold":
            change = {"threshold": _cosine(value, where)}
        case "tags":
            change = {"tags": _tags(value, where)}
    return replace(control, **change)


def _seconds(value: Any, where: str) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    need(fine, where, "a number of seconds")
    return float(min(value, _LONGEST))


def _cosine(value: Any, where: str) -> float:
    try:
        cosine = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        cosine = math.nan
    need(-1 <= cosine <= 1, where, "a cosine similarity")
    return cosine


def _tags(value: Any, where: str) -> tuple[str, ...]:
    tags = [tag.strip() for tag in value.split(",")] if isinstance(value, str) else value
    fine = isinstance(tags, list) and len(tags) <= _MOST_TAGS
    need(fine and all(isinstance(tag, str) and 0 < len(tag) <= _LONGEST_NAME for tag in tags), where, "a few texts")
    return tuple(tags)
