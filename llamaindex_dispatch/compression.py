"""Messages of LlamaIndex as a compressor sees them, and back.

What a compressor did not touch comes back as the very same object; of what it did, only the texts differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock

from dispatch_core._flow import Flow
from dispatch_core.compress import Careful, estimated
from dispatch_core.messages import Message, Part, Role
from llamaindex_dispatch.identity import Prompt

_ROLES: Mapping[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
_PICTURES = ("image", "document", "audio", "video")
_PICTURE_TOKENS = 800


def shortened(careful: Careful, prompt: Prompt) -> Flow[Prompt]:
    """A prompt, or messages, as the compressor leaves them."""
    if isinstance(prompt, str):
        messages = yield from careful.shortened((Message.of("user", prompt),))
        return messages[0].text
    return from_core((yield from careful.shortened(to_core(prompt))))


def to_core(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Each block becomes a part; what is no text is one of the kind "other"."""
    return tuple(map(_message, messages))


def from_core(messages: Sequence[Message]) -> list[ChatMessage]:
    """The messages that `to_core` was given, with the texts of these. Blocks that lost all their text are left out;
    a message that comes from elsewhere is made anew."""
    return [_made(message) if message.source is None else _restored(message) for message in messages]


def _message(message: ChatMessage) -> Message:
    calls, tokens = _calls(message)
    answered = message.additional_kwargs.get("tool_call_id")
    return Message(
        _ROLES.get(message.role, "assistant"),
        tuple(map(_part, message.blocks)),
        calls,
        (str(answered),) if answered else (),
        tokens,
        message,
    )


def _part(block: Any) -> Part:
    if isinstance(block, TextBlock):
        return Part(block.text, source=block)
    pictured = block.block_type in _PICTURES
    tokens = _PICTURE_TOKENS if pictured else estimated(json.dumps(block.model_dump(), default=str))
    return Part(kind="other", tokens=tokens, source=block)


def _calls(message: ChatMessage) -> tuple[tuple[str, ...], int]:
    """The ids of the tool calls of a message, and the tokens of those that are in no block."""
    ids = [block.tool_call_id for block in message.blocks if isinstance(block, ToolCallBlock)]
    held = message.additional_kwargs.get("tool_calls")
    listed = held if isinstance(held, list) and not any(ids) else []
    ids += [call.get("id") if isinstance(call, Mapping) else getattr(call, "id", None) for call in listed]
    return tuple(str(id) for id in ids if id), sum(estimated(str(call)) for call in listed)


def _restored(message: Message) -> ChatMessage:
    source: ChatMessage = message.source
    before = tuple(map(_part, source.blocks))
    if message.parts == before:
        return source
    blocks = [
        old.source if part.text == old.text else old.source.model_copy(update={"text": part.text})
        for part, old in zip(message.parts, before, strict=True)
        if part.text or not old.text
    ]
    return source.model_copy(update={"blocks": blocks})


def _made(message: Message) -> ChatMessage:
    extras = {"tool_call_id": message.answers[0]} if message.answers else {}
    return ChatMessage(role=MessageRole(message.role), content=message.text, additional_kwargs=extras)
