"""Generations to bytes and back: complete answers only, JSON only, allow-listed classes only."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.load import Serializable, dumps, load
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, Generation

from dispatch_core.types import Match, Usage
from langchain_dispatch.endings import unfinished
from langchain_dispatch.pieces import Piece, pieces_of
from langchain_dispatch.shape import NO_SHAPE, Shape, stored_form

_CLASSES: list[type[Serializable]] = [Generation, ChatGeneration, AIMessage]
_BY_NAME: dict[str, type[Generation] | type[AIMessage]] = {
    "Generation": Generation, "ChatGeneration": ChatGeneration, "AIMessage": AIMessage
}  # fmt: skip
_SPENT = ("token_usage", "usage")
_IDS = ("id", "call_id", "tool_call_id", "tool_use_id")
_RANDOM = 24
_ESCAPED = b"__lc_escaped__"
"""How LangChain marks what looks like an object of its own and is none."""


@dataclass(slots=True)
class Answer:
    """An answer from the cache, marked as such, with ids of its own, and without tokens that were not spent.

    ``fields`` are those of its first message; ``pieces`` the chunks in which it was once streamed, none if it never
    was; ``ids`` the new ids of its tool calls by the old ones, ``note`` what it says of itself.
    """

    fields: Mapping[str, Any]
    pieces: Sequence[Piece]
    ids: Mapping[str, str]
    note: Mapping[str, Any]
    make: Callable[[], list[Generation]]
    made: list[Generation] | None = None

    @property
    def generations(self) -> list[Generation]:
        """Made when they are asked for: a stream does without. Objects of this answer alone, for LangChain writes
        into them."""
        if self.made is None:
            self.made = self.make()
        return self.made


def encode(generations: Sequence[Generation], chunks: Sequence[AIMessageChunk] = ()) -> bytes | None:
    """The stored form, or None for an answer that must not be replayed: empty, cut off, or not wholly JSON.

    ``chunks`` are those in which it was streamed.
    """
    if not generations or not all(_complete(generation) for generation in generations):
        return None
    try:
        stored = [_storable(generation) for generation in generations]
        text = dumps(stored)
        if _holds_unknown(json.loads(text)):
            return None
        pieces = pieces_of(chunks, getattr(stored[0], "message", None)) if chunks else None
        return (f'{{"generations":{text},"pieces":{json.dumps(pieces)}}}' if pieces else text).encode()
    except (ValueError, TypeError, RecursionError):
        # Circular or endless metadata; LangChain itself would not notice before somebody prints it.
        return None


def as_text(generations: Sequence[Generation]) -> list[Generation]:
    """Answers as the model itself says them, to whom who listened to newer events made blocks of their text."""
    return [_as_text(generation) for generation in generations]


def usage_of(generations: Sequence[Generation]) -> Usage | None:
    """The tokens that the provider reported with a chat answer, or None."""
    for generation in generations:
        usage = getattr(getattr(generation, "message", None), "usage_metadata", None)
        if usage and (usage.get("input_tokens") or usage.get("output_tokens")):
            return Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0))
    return None


def replayed(match: Match, shape: Shape = NO_SHAPE, *, whole: bool = True) -> Answer | None:
    """The answer of a hit; None if the entry cannot be read: written by another version, or not by us at all.

    An old message id would replace the earlier turn in a checkpointed thread; old tool-call ids would collide there.
    With ``whole`` the generations are made at once.
    """
    try:
        answer = _read(match, shape)
        if whole and not answer.generations:
            return None
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
        return None
    return answer


def _read(match: Match, shape: Shape) -> Answer:
    payload, note = match.entry.payload, match.note()
    stored: Any = json.loads(payload)
    pieces: list[Piece] = []
    if isinstance(stored, dict):
        stored, pieces = stored.get("generations"), stored.get("pieces") or []
    ids: dict[str, str] = {}
    if payload.count(b'"lc":') != _objects(stored) or _ESCAPED in payload:
        return _loaded(stored, pieces, note, shape)
    for node in stored:
        if "message" in node["kwargs"]:
            told = node["kwargs"]["message"]["kwargs"]
            told.update(_renewed(told, ids, note, shape))
    first = stored[0]["kwargs"]
    fields = first["message"]["kwargs"] if "message" in first else {"content": first["text"]}
    if not isinstance(fields["content"], str | list):
        raise ValueError("not a message")
    return Answer(fields, pieces, ids, note, lambda: [_object(node) for node in stored])


def _loaded(stored: Any, pieces: list[Piece], note: Mapping[str, Any], shape: Shape) -> Answer:
    """Of what holds objects within objects."""
    generations, ids = load(stored, allowed_objects=_CLASSES), dict[str, str]()
    if not isinstance(generations, list) or not all(isinstance(item, Generation) for item in generations):
        raise ValueError("not a list of generations")
    for generation in generations:
        if isinstance(generation, ChatGeneration):
            update = _renewed(vars(generation.message), ids, note, shape)
            generation.message = generation.message.model_copy(update=update)
    first = getattr(generations[0], "message", None)
    fields = {"content": generations[0].text} if first is None else vars(first)
    return Answer(fields, pieces, ids, note, lambda: generations)


def with_ids(value: Any, fresh: Mapping[str, str]) -> Any:
    """The same structure with every old tool-call id replaced, wherever a provider repeats it."""
    if isinstance(value, dict):
        return {
            name: fresh.get(item, item) if name in _IDS and isinstance(item, str) else with_ids(item, fresh)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [with_ids(item, fresh) for item in value]
    return value


def unspent(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A response's metadata without the tokens that it cost then."""
    return {name: value for name, value in metadata.items() if name not in _SPENT}


def _alike(id: str) -> str:
    """A new id of the same form: some providers refuse the ids of others."""
    head, mark, tail = id.rpartition("_")
    length = len(tail) if len(tail) > 8 else _RANDOM
    random = uuid.uuid4().hex + uuid.uuid4().hex
    return f"{head}{mark}{random[:length]}"


def _renewed(fields: Mapping[str, Any], ids: dict[str, str], note: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """What is other in a message than it was stored; the ids of its tool calls are added to ``ids``."""
    calls = [*fields.get("tool_calls", ()), *fields.get("invalid_tool_calls", ())]
    ids.update({call["id"]: _alike(call["id"]) for call in calls if call["id"]})
    update: dict[str, Any] = {
        "id": f"run-{uuid.uuid4()}",
        "response_metadata": {**unspent(fields.get("response_metadata", {})), "dispatch": dict(note)},
    }
    if fields.get("usage_metadata"):
        update["usage_metadata"] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    if ids:
        for name in ("tool_calls", "invalid_tool_calls", "additional_kwargs", "content"):
            if name in fields:
                update[name] = with_ids(fields[name], ids)
    if "parsed" in fields.get("additional_kwargs", {}):
        kwargs = update.get("additional_kwargs", fields["additional_kwargs"])
        update["additional_kwargs"] = {**kwargs, "parsed": shape.restored(kwargs["parsed"])}
    return update


def _as_text(generation: Generation) -> Generation:
    message = getattr(generation, "message", None)
    blocks = getattr(message, "content", None)
    if message is None or not isinstance(blocks, list) or message.response_metadata.get("output_version") != "v1":
        return generation
    if not all(isinstance(block, dict) and _is_text(block) for block in blocks):
        return generation
    metadata = {name: value for name, value in message.response_metadata.items() if name != "output_version"}
    text = "".join(block.get("text", "") for block in blocks)
    return ChatGeneration(
        message=message.model_copy(update={"content": text, "response_metadata": metadata}),
        generation_info=generation.generation_info,
    )


def _is_text(block: Mapping[str, Any]) -> bool:
    """Or a tool call, which the message has besides."""
    return block.get("type") == "tool_call" or (set(block) <= {"type", "text", "index"} and "text" in block)


def _complete(generation: Generation) -> bool:
    if type(generation) not in (Generation, ChatGeneration):
        return False
    message = getattr(generation, "message", None)
    if message is not None and type(message) is not AIMessage:
        return False
    if not generation.text and not getattr(message, "content", None) and not getattr(message, "tool_calls", None):
        return False
    return not unfinished({**(generation.generation_info or {}), **getattr(message, "response_metadata", {})})


def _storable(generation: Generation) -> Generation:
    """With what an SDK parsed in its JSON form. Raises ValueError if it has none."""
    message = getattr(generation, "message", None)
    if message is None or "parsed" not in message.additional_kwargs:
        return generation
    kwargs = {**message.additional_kwargs, "parsed": stored_form(message.additional_kwargs["parsed"])}
    return generation.model_copy(update={"message": message.model_copy(update={"additional_kwargs": kwargs})})


def _objects(stored: Any) -> int:
    """How many objects a stored list of generations consists of, if there is nothing special in them."""
    if not isinstance(stored, list) or not all(isinstance(item, dict) for item in stored):
        return 0
    return sum(2 if "message" in item.get("kwargs", ()) else 1 for item in stored)


def _object(node: dict[str, Any]) -> Any:
    """What `load` makes of it, a few times faster: nothing in it is an object but generations and their messages."""
    kind, fields = _kind(node), node["kwargs"]
    return kind(**({**fields, "message": _object(fields["message"])} if "message" in fields else fields))


def _kind(node: Mapping[str, Any]) -> type[Any]:
    if node["lc"] != 1 or node["type"] != "constructor":
        raise ValueError("not an object")
    return _BY_NAME[node["id"][-1]]


def _holds_unknown(value: Any) -> bool:
    """LangChain writes an object that it cannot serialise as a note about it, which cannot be read back."""
    if isinstance(value, dict):
        unknown = value.get("lc") == 1 and value.get("type") == "not_implemented"
        return unknown or any(_holds_unknown(item) for item in value.values())
    return isinstance(value, list) and any(_holds_unknown(item) for item in value)
