"""A value that satisfies a JSON schema, the same every time: what a model asked for structured output says.

Objects get every declared property; a text is put wherever a free string is wanted, so a caller can see
which answer it got; numbers are the smallest allowed from 1 on. A recursive schema is entered once and then
ended by null, an empty array or an absent property, whichever it allows. ``pattern`` is not honoured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_FORMATS = {
    "date-time": "2024-01-01T00:00:00Z",
    "date": "2024-01-01",
    "time": "00:00:00Z",
    "duration": "PT1M",
    "email": "user@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}
_STEPS = 32
_COMPOSED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})


class _Filler:
    """One walk over one schema. A path holds the references entered on the way down."""

    def __init__(self, root: Mapping[str, Any], text: str) -> None:
        self._root = root
        self._text = text

    def value(self, schema: Any, path: tuple[str, ...]) -> Any:
        schema, path = self._resolve(schema, path)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), Sequence) and schema["enum"]:
            return schema["enum"][0]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        if kind == "object":
            return self._object(schema, path)
        if kind == "array":
            return self._array(schema, path)
        return self._scalar(kind, schema)

    def _scalar(self, kind: str, schema: Mapping[str, Any]) -> str | int | float | bool | None:
        match kind:
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema, self._text)

    def _resolve(self, schema: Any, path: tuple[str, ...]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        """Follow references, merge ``allOf`` and choose one of ``anyOf``/``oneOf``."""
        for _ in range(_STEPS):
            if not isinstance(schema, Mapping):
                return {}, path
            rest = {key: part for key, part in schema.items() if key not in _COMPOSED}
            if isinstance(schema.get("$ref"), str):
                reference = schema["$ref"]
                if path.count(reference) > 1:
                    break
                path = (*path, reference)
                schema = {**self._lookup(reference), **rest}
            elif schema.get("allOf"):
                for part in schema["allOf"]:
                    resolved, path = self._resolve(part, path)
                    rest = _merge(rest, resolved)
                schema = rest
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                schema = {**rest, **_choose(options, path)}
            else:
                return schema, path
        return {"type": "null"}, path

    def _lookup(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for name in reference.removeprefix("#").split("/"):
            if name:
                key = name.replace("~1", "/").replace("~0", "~")
                found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def _object(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required", ())
        names = [name for name in properties if name in required or not _entered(properties[name], path)]
        names += [name for name in required if name not in properties]
        return {name: self.value(properties.get(name), path) for name in names}

    def _array(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
        items = schema.get("items")
        values = [self.value(one, path) for one in schema.get("prefixItems", ())]
        least = schema.get("minItems", 0 if items is False or _entered(items, path) else 1)
        length = min(max(least, len(values)), schema.get("maxItems", math.inf))
        return values + [self.value(items, path) for _ in range(int(length) - len(values))]


def example(schema: Mapping[str, Any], text: str) -> Any:
    """A JSON value for `schema`, with `text` as its free strings.

    A malformed schema raises whatever its malformed part provokes (AttributeError, TypeError, ...).
    """
    return _Filler(schema, text).value(schema, ("#",))


def _entered(schema: Any, path: tuple[str, ...]) -> bool:
    """Would `schema` enter a reference that the path is already inside of?"""
    if not isinstance(schema, Mapping):
        return False
    parts = schema.get("allOf") or ()
    return schema.get("$ref") in path or any(_entered(part, path) for part in parts)


def _choose(options: Sequence[Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """The first option that is neither null nor recursive; else null; else the first."""
    known = [one for one in options if isinstance(one, Mapping)]
    real = [one for one in known if one.get("type") != "null"]
    new = [one for one in real if not _entered(one, path)]
    null = [one for one in known if one.get("type") == "null"]
    return next(iter([*new, *null, *real]), {})


def _merge(one: dict[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**one, **two}
    if "properties" in one and "properties" in two:
        merged["properties"] = {**one["properties"], **two["properties"]}
    if "required" in one and "required" in two:
        merged["required"] = [*one["required"], *two["required"]]
    return merged


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    """The smallest allowed multiple from 1 on, else the largest allowed, else the middle of an interval."""
    step = schema.get("multipleOf", 1)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    low = max(schema.get("minimum", -math.inf), above + 1)
    high = min(schema.get("maximum", math.inf), below - 1)
    value = min(step if low <= step else math.ceil(low / step) * step, high)
    if value < low:
        value = (max(above, schema.get("minimum", above)) + min(below, schema.get("maximum", below))) / 2
    return int(value) if whole or float(value).is_integer() else float(value)


def _string(schema: Mapping[str, Any], text: str) -> str:
    value = _FORMATS.get(str(schema.get("format")), text)
    return value.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
