"""What identifies a conversation of the OpenAI protocol: its turns, without what differs between an answer and its
replay. Pure.

A replayed answer has ids of its own; as an earlier turn it must lead to the same key as the model's answer. Which
result belongs to which tool call still counts: ids are numbered as they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_OF_AN_ANSWER = frozenset({"refusal", "annotations", "function_call", "audio", "tool_calls", "content"})
_NUMBERED = frozenset({"tool_call_id", "id", "tool_use_id"})
TEXTS = frozenset({"text", "input_text"})


class Unstable(Exception):
    """The conversation holds what may be something else tomorrow, or is none: it goes past the cache."""


def turns_of(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """The turns in canonical form. Raises `Unstable`."""
    numbers: dict[str, int] = {}
    return [_turn(message, numbers) for message in messages]


def text_of(content: Any) -> str | None:
    """The text of a content; None if there is anything but text in it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and str(part.get("type")) in TEXTS else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


def all_text(value: Any) -> str:
    """Every text in a message, to reckon what it costs."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(map(all_text, value))
    if isinstance(value, dict):
        if str(value.get("type")) in _PICTURES:
            return _PICTURE
        return "\n".join(all_text(inner) for name, inner in value.items() if name not in ("role", "type", "id"))
    return ""


_PICTURES = frozenset({"image_url", "image", "input_audio", "file", "document"})
_PICTURE = "x" * 3200
"""About 800 tokens, what providers charge for a picture of ordinary size."""


def _turn(message: Any, numbers: dict[str, int]) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Unstable("malformed")
    answered = message["role"] == "assistant"
    turn: dict[str, Any] = {}
    for name, value in message.items():
        if value is None or (answered and name in _OF_AN_ANSWER and not value):
            continue
        if name == "content":
            text = text_of(value)
            turn[name] = _canonical(value, numbers) if text is None else text
        else:
            turn[name] = _canonical_of(name, value, numbers)
    return turn


def _canonical_of(name: str, value: Any, numbers: dict[str, int]) -> Any:
    if name in _NUMBERED and isinstance(value, str):
        return numbers.setdefault(value, len(numbers))
    if name in ("url", "image_url", "file_url") and isinstance(value, str) and not value.startswith("data:"):
        raise Unstable("url")
    return _canonical(value, numbers)


def _canonical(value: Any, numbers: dict[str, int]) -> Any:
    if isinstance(value, Mapping):
        return {name: _canonical_of(name, inner, numbers) for name, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner, numbers) for inner in value]
    return value
