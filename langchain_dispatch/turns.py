"""What identifies a conversation: its turns, without what differs between an answer and its replay.

An answer from the cache has ids of its own and another usage; as an earlier turn it must lead to the same key as the
answer of the model. Which result belongs to which tool call still counts: ids are numbered as they come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

Message: TypeAlias = Mapping[str, Any]
"""A message as LangChain serialises it."""

_ANSWERING = ("tool_use_id", "call_id", "tool_call_id")
_REPEATED = frozenset({"tool_calls", "refusal", "parsed"})
_WHOLE = {"AIMessageChunk": "ai", "HumanMessageChunk": "human", "SystemMessageChunk": "system"}
_PLAIN = frozenset({HumanMessage, SystemMessage, AIMessage})
_PASSING = "lc_"
"""How the ids begin that LangChain itself gives to blocks, new ones each time."""


def messages_of(prompt: str) -> list[Message] | None:
    """The messages of a chat model's prompt; None for the plain prompt of a completion model."""
    if not prompt.startswith('[{"lc"'):
        return None
    try:
        parsed = json.loads(prompt)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list) else None


def canonical_turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Raises KeyError, TypeError or AttributeError for what are no messages."""
    numbers: dict[str, int] = {}
    return [_turn(message["kwargs"], numbers) for message in messages]


def plain_turns(messages: Sequence[BaseMessage]) -> list[dict[str, Any]] | None:
    """The `canonical_turns` of messages that are text and nothing else, without a way through JSON; else None."""
    if not all(type(message) in _PLAIN and _is_plain(message) for message in messages):
        return None
    return [_turn(vars(message), {}) for message in messages]


def _is_plain(message: BaseMessage) -> bool:
    calls = getattr(message, "tool_calls", None) or getattr(message, "invalid_tool_calls", None)
    more = message.additional_kwargs or message.__pydantic_extra__ or calls
    return type(message.content) is str and not more


def plain_text(content: Any) -> str | None:
    """The text of a content, None if it holds anything but text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
        else:
            return None
    return "\n".join(texts)


def _turn(fields: Mapping[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    kind = _WHOLE.get(fields["type"], fields["type"])
    answered = kind == "ai"
    calls = [_call(call, numbers) for call in fields.get("tool_calls") or []]
    calls += [_call(call, numbers) for call in fields.get("invalid_tool_calls") or []]
    turn = {"type": kind, "content": _canonical(fields["content"], numbers, answered=answered)}
    for name in ("name", "status", "role"):
        if fields.get(name):
            turn[name] = fields[name]
    if fields.get("tool_call_id"):
        turn["answers"] = _number(fields["tool_call_id"], numbers)
    extras = {name: value for name, value in (fields.get("additional_kwargs") or {}).items() if value is not None}
    if answered:
        # What an answer carries besides: ids that change when it came from a cache, and the calls once more.
        extras = {name: value for name, value in extras.items() if name not in _REPEATED}
    if extras:
        turn["additional_kwargs"] = extras
    if calls:
        turn["tool_calls"] = calls
    return turn


def _call(call: Mapping[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    return {"name": call["name"], "args": call["args"], "number": _number(call.get("id"), numbers)}


def _number(id: str | None, numbers: dict[str, int]) -> int | None:
    return None if id is None else numbers.setdefault(id, len(numbers))


def _canonical(content: Any, numbers: dict[str, int], *, answered: bool) -> Any:
    """Blocks with their ids numbered; the other ids of an answer are left out, for they are new in each replay."""
    if isinstance(content, list):
        return [_canonical(block, numbers, answered=answered) for block in content]
    if not isinstance(content, dict):
        return content
    block: dict[str, Any] = {}
    for name, value in content.items():
        if name in _ANSWERING and isinstance(value, str):
            block[name] = _number(value, numbers)
        elif name == "id" and isinstance(value, str):
            if value in numbers:
                block[name] = numbers[value]
            elif not answered and not value.startswith(_PASSING):
                block[name] = value
        else:
            block[name] = _canonical(value, numbers, answered=answered)
    return block
