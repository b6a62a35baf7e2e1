"""The messages of a body as a compressor sees them, and back. Pure.

What a compressor did not touch comes back as the very same object; of what it did, only the texts differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from dispatch_core.compress import estimated
from dispatch_core.messages import Message, Part, Role
from dispatch_gateway.turns import TEXTS, all_text

_Place: TypeAlias = tuple[int, ...]
"""Where in a content a text stands: the number of its block, and that of the block in there."""

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "tool",
    "function": "tool",
}


def to_core(messages: Sequence[Any]) -> tuple[Message, ...]:
    """Each text of a message becomes a part, and what is no text one of the kind "other". Nothing at all comes of
    what no provider would take for a conversation."""
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        return ()
    return tuple(map(_message, messages))


def from_core(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages that `to_core` was given, with the texts of these; without the blocks that lost all of theirs."""
    return [_restored(message) for message in messages]


def _message(message: dict[str, Any]) -> Message:
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    results = [block for block in blocks if block.get("type") == "tool_result"]
    only_results = bool(results) and len(results) == len(content or ())
    rest = {name: value for name, value in message.items() if name != "content"}
    return Message(
        "tool" if only_results else _ROLES.get(message["role"], "assistant"),
        tuple(_parts(content, within_results=only_results)),
        _calls(message, blocks),
        _answers(message, results),
        estimated(all_text(rest)),
        message,
    )


def _parts(content: Any, *, within_results: bool) -> list[Part]:
    if isinstance(content, str):
        return [Part(content, source=())]
    return _of_blocks(content, (), within_results=within_results) if isinstance(content, list) else []


def _of_blocks(blocks: Sequence[Any], above: _Place, *, within_results: bool) -> list[Part]:
    parts: list[Part] = []
    for at, block in enumerate(blocks):
        place, field = (*above, at), _field(block)
        inner = block.get("content") if isinstance(block, dict) and block.get("type") == "tool_result" else None
        if field is not None and (field == "text" or within_results):
            parts.append(Part(block[field], source=place))
        elif within_results and isinstance(inner, list) and not above:
            parts += _of_blocks(inner, place, within_results=True)
        else:
            parts.append(Part(kind="other", tokens=estimated(all_text(block)), source=place))
    return parts


def _field(block: Any) -> str | None:
    """The name of a block's text."""
    if not isinstance(block, dict):
        return None
    kind = str(block.get("type"))
    name = "text" if kind in TEXTS else "content" if kind == "tool_result" else ""
    return name if isinstance(block.get(name), str) else None


def _calls(message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The ids of the tool calls that a message makes."""
    listed = message.get("tool_calls")
    made = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    made += (dict(block) for block in blocks if block.get("type") == "tool_use")
    older = message.get("function_call")
    named = [f"function {older.get('name')}"] if isinstance(older, dict) else []
    return tuple([str(one["id"]) for one in made if one.get("id")] + named)


def _answers(message: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The ids of those whose results it brings."""
    if message["role"] == "function":
        return (f"function {message.get('name')}",)
    answered = [message.get("tool_call_id"), *(block.get("tool_use_id") for block in results)]
    return tuple(str(id) for id in answered if id)


def _restored(message: Message) -> dict[str, Any]:
    source: dict[str, Any] = message.source
    content = source.get("content")
    texts = {part.source: part.text for part in message.parts if part.kind != "other"}
    if isinstance(content, str):
        return source if texts[()] == content else {**source, "content": texts[()]}
    blocks = _filled(content, (), texts) if isinstance(content, list) else content
    return source if blocks == content else {**source, "content": blocks}


def _filled(blocks: Sequence[Any], above: _Place, texts: Mapping[_Place, str]) -> list[Any]:
    filled = []
    for at, block in enumerate(blocks):
        place, field = (*above, at), _field(block)
        if field is not None and place in texts:
            text = texts[place]
            if text or not block[field] or field == "content":
                filled.append(block if text == block[field] else {**block, field: text})
        elif not above and any(one[:1] == place for one in texts):
            # What a tool brought may be empty, but it must be there.
            filled.append({**block, "content": _filled(block["content"], place, texts) or ""})
        else:
            filled.append(block)
    return filled
