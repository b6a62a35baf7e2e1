"""What a request for Anthropic's messages asks, read strictly. No I/O.

Input tokens are counted as those of the other API are (see `request`): four for each message and for the system
prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dispatch_core.simulate.request import MESSAGE_TOKENS, REPLY_TOKENS, ApiError, ChatRequest, is_count, parsed
from dispatch_core.simulate.text import count

_TEXTS = {"text": "text", "thinking": "thinking"}


def need(condition: bool, where: str, expected: str) -> None:
    """Raise the 400 of a parameter that is not as expected."""
    if not condition:
        raise ApiError(400, f"{where}: {expected}")


def parse_messages(body: bytes) -> ChatRequest:
    """Read a request body. Raises `ApiError` (400) in the words of the API for anything it cannot answer."""
    data = parsed(body)
    for name in ("model", "max_tokens", "messages"):
        need(data.get(name) is not None, name, "Field required")
    need(isinstance(data["model"], str) and bool(data["model"]), "model", "Input should be a valid string")
    need(is_count(data["max_tokens"]), "max_tokens", "Input should be an integer of at least 1")
    messages = data["messages"]
    need(isinstance(messages, list), "messages", "Input should be a valid list")
    need(bool(messages), "messages", "at least one message is required")
    stream = data.get("stream")
    need(stream is None or isinstance(stream, bool), "stream", "Input should be a valid boolean")
    said = [_said(message, f"messages.{index}") for index, message in enumerate(messages)]
    system = _text(data.get("system") or "", "system")
    texts = [*([system] if system else []), *(one.text for one in said)]
    choice = _choice(data)
    prompt_tokens = sum(map(count, texts)) + MESSAGE_TOKENS * len(texts) + REPLY_TOKENS
    if data.get("tools"):
        prompt_tokens += count(json.dumps(data["tools"], ensure_ascii=False))
    return ChatRequest(
        model=data["model"],
        prompt="\n".join(texts),
        asked=next((one.own for one in reversed(said) if one.role == "user" and one.own), texts[-1]),
        prompt_tokens=prompt_tokens,
        max_tokens=data["max_tokens"],
        n=1,
        stream=bool(stream),
        include_usage=True,
        call=choice[0],
        call_ends="tool_calls",
        schema=choice[1] if choice[0] is not None else _answer_schema(data),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """One message: ``own`` is the text its author wrote, ``text`` also what tools were told and told."""

    role: str
    own: str
    text: str


def _said(message: Any, where: str) -> _Said:
    need(isinstance(message, dict), where, "Input should be a valid dictionary")
    role, content = message.get("role"), message.get("content")
    need(role in ("user", "assistant"), f"{where}.role", "Input should be 'user' or 'assistant'")
    if isinstance(content, str):
        return _Said(role, content, content)
    blocks = _blocks(content, f"{where}.content")
    own = "\n".join(filter(None, (_own(block, f"{where}.content") for block in blocks)))
    tools = [_of_tool(block, f"{where}.content") for block in blocks]
    return _Said(role, own, "\n".join(filter(None, [own, *tools])))


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(filter(None, (_own(block, where) for block in _blocks(content, where))))


def _blocks(content: Any, where: str) -> Sequence[Mapping[str, Any]]:
    need(isinstance(content, list), where, "Input should be a valid string or list")
    for index, block in enumerate(content):
        typed = isinstance(block, dict) and isinstance(block.get("type"), str)
        need(typed, f"{where}.{index}", "Input should be a block with a type")
    return list(content)


def _own(block: Mapping[str, Any], where: str) -> str:
    """The text of a block; one that has none (an image) counts nothing."""
    text = block.get(_TEXTS[block["type"]]) if block["type"] in _TEXTS else ""
    need(isinstance(text, str), where, "Input should be a valid string")
    return str(text)


def _of_tool(block: Mapping[str, Any], where: str) -> str:
    match block["type"]:
        case "tool_use":
            return json.dumps(block.get("input") or {}, ensure_ascii=False)
        case "tool_result":
            return _text(block.get("content") or "", where)
        case _:
            return ""


def _choice(data: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any] | None]:
    """The tool to call and the schema of its arguments."""
    tools, choice = data.get("tools"), data.get("tool_choice")
    need(tools is None or isinstance(tools, list), "tools", "Input should be a valid list")
    need(choice is None or isinstance(choice, dict), "tool_choice", "Input should be an object")
    schemas: dict[str, Mapping[str, Any]] = {}
    for index, tool in enumerate(tools or ()):
        named = isinstance(tool, dict) and isinstance(tool.get("name"), str)
        need(named, f"tools.{index}.name", "Field required")
        schemas[tool["name"]] = tool.get("input_schema") or {}
    kind = (choice or {}).get("type", "auto")
    need(
        kind in ("auto", "any", "tool", "none"), "tool_choice.type", "Input should be 'auto', 'any', 'tool' or 'none'"
    )
    if kind in ("auto", "none"):
        return None, None
    need(bool(schemas), "tool_choice", "may only be specified while providing tools")
    name = next(iter(schemas)) if kind == "any" else (choice or {}).get("name")
    need(name in schemas, "tool_choice.name", "Tool not found in provided tools")
    return str(name), schemas[str(name)]


def _answer_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    config = data.get("output_config") or {}
    need(isinstance(config, dict), "output_config", "Input should be an object")
    shape = config.get("format")
    if shape is None:
        return None
    told = isinstance(shape, dict) and shape.get("type") == "json_schema" and isinstance(shape.get("schema"), dict)
    need(told, "output_config.format", "Input should be a json_schema with a schema")
    schema: Mapping[str, Any] = shape["schema"]
    return schema
