"""Generations to bytes and back: complete answers only, JSON only, allow-listed classes only."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.load import Serializable, dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation

from dispatch_core.types import Match, Usage

_CLASSES: list[type[Serializable]] = [Generation, ChatGeneration, AIMessage]
_TRUNCATED = frozenset({"length", "max_tokens", "content_filter", "safety", "error", "incomplete"})
_SPENT = ("token_usage", "usage")


def encode(generations: Sequence[Generation]) -> bytes | None:
    """The stored form, or None for an answer that must not be replayed: empty, cut off, or not wholly JSON."""
    if not generations or not all(_complete(generation) for generation in generations):
        return None
    try:
        text = dumps(list(generations))
        return None if _holds_unknown(json.loads(text)) else text.encode()
    except (ValueError, TypeError, RecursionError):
        # Circular or endless metadata; LangChain itself would not notice before somebody prints it.
        return None


def decode(payload: bytes) -> list[Generation]:
    """Fresh objects at every call: LangChain writes into what a cache returns."""
    generations = loads(payload.decode(), allowed_objects=_CLASSES)
    if not isinstance(generations, list) or not all(isinstance(item, Generation) for item in generations):
        raise ValueError("not a list of generations")
    return generations


def usage_of(generations: Sequence[Generation]) -> Usage | None:
    """The tokens that the provider reported with a chat answer, or None."""
    for generation in generations:
        usage = getattr(getattr(generation, "message", None), "usage_metadata", None)
        if usage and (usage.get("input_tokens") or usage.get("output_tokens")):
            return Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0))
    return None


def replayed(match: Match) -> list[Generation] | None:
    """The generations of a hit: marked as such, with ids of their own, and without tokens that were not spent.

    None if the entry cannot be read: written by another version, or not by us at all.

    An old message id would replace the earlier turn in a checkpointed thread; old tool-call ids would collide there.
    """
    try:
        generations = decode(match.entry.payload)
    except (ValueError, TypeError, NotImplementedError):
        return None
    note = match.note()
    for generation in generations:
        if isinstance(generation, ChatGeneration):
            generation.message = _reissued(generation.message, note)
    return generations


def _reissued(message: Any, note: dict[str, Any]) -> Any:
    metadata = {name: value for name, value in message.response_metadata.items() if name not in _SPENT}
    update: dict[str, Any] = {
        "id": f"run-{uuid.uuid4()}",
        "response_metadata": {**metadata, "dispatch": note},
    }
    if message.usage_metadata:
        update["usage_metadata"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    fresh = {call["id"]: f"call_{uuid.uuid4().hex[:24]}" for call in message.tool_calls if call["id"]}
    if fresh:
        update["tool_calls"] = [{**call, "id": fresh.get(call["id"], call["id"])} for call in message.tool_calls]
        update["additional_kwargs"] = _with_ids(message.additional_kwargs, fresh)
        update["content"] = _with_ids(message.content, fresh)
    return message.model_copy(update=update)


def _with_ids(value: Any, fresh: dict[str, str]) -> Any:
    """The same structure with every old tool-call id replaced, wherever a provider repeats it."""
    if isinstance(value, dict):
        return {
            name: fresh.get(item, item) if name == "id" and isinstance(item, str) else _with_ids(item, fresh)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_with_ids(item, fresh) for item in value]
    return value


def _complete(generation: Generation) -> bool:
    if type(generation) not in (Generation, ChatGeneration):
        return False
    message = getattr(generation, "message", None)
    if message is not None and type(message) is not AIMessage:
        return False
    if not generation.text and not getattr(message, "content", None) and not getattr(message, "tool_calls", None):
        return False
    facts = {**(generation.generation_info or {}), **getattr(message, "response_metadata", {})}
    reasons = (facts.get(name) for name in ("finish_reason", "stop_reason", "status"))
    return not any(isinstance(reason, str) and reason.lower() in _TRUNCATED for reason in reasons)


def _holds_unknown(value: Any) -> bool:
    """LangChain writes an object that it cannot serialise as a note about it, which cannot be read back."""
    if isinstance(value, dict):
        unknown = value.get("lc") == 1 and value.get("type") == "not_implemented"
        return unknown or any(_holds_unknown(item) for item in value.values())
    return isinstance(value, list) and any(_holds_unknown(item) for item in value)
