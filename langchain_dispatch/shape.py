"""The shape that a call's answer must have: structured output and its schema.

LangChain's cache key names a schema class and does not tell its fields; in JSON mode it says nothing at all. Two
classes of one name would be answered alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.json import parse_json_markdown
from pydantic import BaseModel, TypeAdapter, ValidationError

from dispatch_core.keys import digest

_FORMATS = ("ls_structured_output_format", "structured_output_format")
_NO_SCHEMA = (ValueError, TypeError, AttributeError, KeyError)


@dataclass(frozen=True, slots=True)
class Shape:
    """``classes`` are the schema classes among a call's arguments, ``format`` what it says of structured output."""

    classes: tuple[type, ...] = ()
    format: Any = None

    def __bool__(self) -> bool:
        return bool(self.classes) or self.format is not None

    def facts(self) -> list[Any]:
        """What must match exactly. Raises `TypeError` for a class that has no schema."""
        return [[_schema_digest(one) for one in self.classes], self.format]

    def fits(self, message: BaseMessage | None) -> bool:
        """Will a parser find in this answer what was asked for, as far as the schema names what there must be?"""
        if message is None or not isinstance(self.format, Mapping):
            return True
        calls = getattr(message, "tool_calls", ())
        try:
            told = [call["args"] for call in calls] or [parse_json_markdown(message.text)]
        except (ValueError, TypeError):
            return False
        needed = (self.format.get("schema") or {}).get("required", ())
        return all(isinstance(one, Mapping) and all(name in one for name in needed) for one in told)

    def unnamed(self, llm_string: str) -> str:
        """The key without the names of the classes, whose schemas are in `facts`."""
        for one in self.classes:
            llm_string = llm_string.replace(repr(one), "<schema>")
        return llm_string

    def restored(self, parsed: Any) -> Any:
        """The object that a provider's SDK had parsed, from its stored form; that form if nobody knows the class."""
        known = [one for one in self.classes if issubclass(one, BaseModel)]
        if len(known) != 1 or not isinstance(parsed, dict):
            return parsed
        try:
            return known[0].model_validate_json(json.dumps(parsed))
        except ValidationError:
            return parsed


NO_SHAPE = Shape()


def shape_of(arguments: Mapping[str, Any], format: Any = None) -> Shape:
    """The shape that a call's arguments ask for; ``format`` is what LangChain's tracers are told of it."""
    classes = tuple(_classes(arguments))
    return Shape(classes, format) if classes or format is not None else NO_SHAPE


def split_format(arguments: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The arguments that reach the model, and what tracers are told of structured output, as in LangChain."""
    told = next((arguments[name] for name in _FORMATS if arguments.get(name)), None)
    rest = {name: value for name, value in arguments.items() if name not in _FORMATS}
    if told is None:
        return rest, None
    try:
        return rest, {"kwargs": told.get("kwargs", {}), "schema": convert_to_json_schema(told["schema"])}
    except ValueError:
        return rest, None


def stored_form(parsed: Any) -> Any:
    """A parsed object as JSON that leads back to the very same. Raises ValueError if it does not."""
    if not isinstance(parsed, BaseModel):
        return parsed
    form = parsed.model_dump(mode="json", by_alias=True, round_trip=True)
    if type(parsed).model_validate_json(json.dumps(form)) != parsed:
        raise ValueError(f"{type(parsed).__name__} is not what it was after a round trip")
    return form


def _classes(value: Any) -> Iterator[type]:
    if isinstance(value, type):
        yield value
    elif isinstance(value, Mapping):
        for _, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            yield from _classes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _classes(item)


@lru_cache(maxsize=512)
def _schema_digest(schema: type) -> str:
    try:
        return digest("schema", json.dumps(TypeAdapter(schema).json_schema(), sort_keys=True))
    except Exception as error:
        # pydantic raises errors of many kinds for classes that it cannot describe.
        raise TypeError(f"{schema.__name__} has no schema") from error
