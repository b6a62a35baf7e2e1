"""The chunks of a streamed answer as they are stored, next to the answer itself.

A chunk that only adds text is stored as the number of characters that it adds: the text is in the answer already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_dispatch.shape import stored_form

Piece: TypeAlias = int | dict[str, Any]
"""How many characters of the text a chunk adds; or its fields, ``characters`` in the place of its text."""

_FIELDS = ("additional_kwargs", "response_metadata", "usage_metadata", "tool_call_chunks", "chunk_position", "name")


def merged(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    """The sum of at least one chunk."""
    total: Any = chunks[0] + list(chunks[1:]) if len(chunks) > 1 else chunks[0]
    return total  # type: ignore[no-any-return]


def pieces_of(chunks: Sequence[AIMessageChunk], message: AIMessage | None) -> list[Piece] | None:
    """The stored form of the chunks; None if their sum is not the message. Raises what is raised for no JSON."""
    if message is None:
        return None
    total = merged(chunks)
    if total.content != message.content or _said(total) != _said(message):
        return None
    pieces = [_piece(chunk) for chunk in chunks]
    json.dumps(pieces)
    return pieces


def chunks_of(pieces: Sequence[Piece], message: Mapping[str, Any], size: int | None) -> Iterator[dict[str, Any]]:
    """The fields of the chunks of a message, of which the fields are given, each when it is asked for.

    ``size`` characters in each if it is given, else as recorded, else all in one.
    """
    content = message["content"]
    text = content if isinstance(content, str) else ""
    if size is not None or not pieces:
        yield from _cut(message, text, size)
        return
    at = 0
    for piece in pieces:
        fields: dict[str, Any] = {"characters": piece} if isinstance(piece, int) else dict(piece)
        characters = fields.pop("characters", None)
        if characters is not None:
            fields["content"] = text[at : at + characters]
            at += characters
        yield fields


def _piece(chunk: AIMessageChunk) -> Piece:
    fields = {name: value for name in _FIELDS if (value := getattr(chunk, name))}
    if "parsed" in chunk.additional_kwargs:
        parsed = stored_form(chunk.additional_kwargs["parsed"])
        fields["additional_kwargs"] = {**chunk.additional_kwargs, "parsed": parsed}
    if not isinstance(chunk.content, str):
        return {**fields, "content": chunk.content}
    return {**fields, "characters": len(chunk.content)} if fields else len(chunk.content)


def _said(message: AIMessage) -> list[Any]:
    return [(call["name"], call["args"]) for call in message.tool_calls]


def _cut(message: Mapping[str, Any], text: str, size: int | None) -> Iterator[dict[str, Any]]:
    size = size or max(1, len(text))
    for at in range(0, len(text), size):
        yield {"content": text[at : at + size]}
    last = {name: value for name in _FIELDS if (value := message.get(name))}
    if not isinstance(message["content"], str):
        last["content"] = message["content"]
    calls = [
        {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": index}
        for index, call in enumerate(message.get("tool_calls", ()))
    ]
    if calls:
        last["tool_call_chunks"] = calls
    yield {**last, "chunk_position": "last"}
