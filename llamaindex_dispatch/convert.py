"""Responses to bytes and back: complete answers only, JSON only, allow-listed types only."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from pydantic import BaseModel

from dispatch_core.types import Match
from llamaindex_dispatch.facts import plain
from llamaindex_dispatch.report import TOKEN_COUNTS

R = TypeVar("R", bound=ChatResponse | CompletionResponse)

_VERSION = 1
_BLOCKS: dict[str, type[TextBlock] | type[ThinkingBlock] | type[ToolCallBlock]] = {
    "text": TextBlock,
    "thinking": ThinkingBlock,
    "tool_call": ToolCallBlock,
}
_SDK_CALLS = {
    "ChatCompletionMessageToolCall": "openai.types.chat",
    "ChatCompletionMessageFunctionToolCall": "openai.types.chat",
    "ChoiceDeltaToolCall": "openai.types.chat.chat_completion_chunk",
}
"""Classes that integrations put into a message's ``additional_kwargs`` and expect to find there again."""

_COUNTS = frozenset({"total_tokens", *(name for pair in TOKEN_COUNTS for name in pair)})
_PIECE = re.compile(r".{1,24}(?:\s+|$)|.{1,24}", re.DOTALL)

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ImportError)
"""What `Form.decode` raises for a payload of another version or another set of packages."""


class Form(Protocol[R]):
    """One of the two shapes of a response."""

    name: str

    def encode(self, response: R) -> bytes | None:
        """The stored form; None for an answer that cannot or should not be replayed."""
        ...

    def decode(self, match: Match) -> R:
        """A fresh response at every call: the framework writes into what it gets."""
        ...

    def text(self, response: R) -> str: ...

    def partial(self, response: R, text: str, delta: str) -> R:
        """A chunk of a stream before the last: the text so far, and what is new of it."""
        ...


class ChatForm:
    name = "chat"

    def encode(self, response: ChatResponse) -> bytes | None:
        message = response.message
        says = any(isinstance(block, TextBlock) and block.text.strip() for block in message.blocks)
        calls = any(isinstance(block, ToolCallBlock) for block in message.blocks)
        known = all(type(block) in _BLOCKS.values() for block in message.blocks)
        if not known or not (says or calls):
            return None
        try:
            return _dump(
                role=message.role.value,
                blocks=[plain(block.model_dump()) for block in message.blocks],
                extras=_extras(message.additional_kwargs),
                logprobs=_logprobs(response),
            )
        except TypeError:
            return None

    def decode(self, match: Match) -> ChatResponse:
        data = _load(match)
        message = ChatMessage(
            role=data["role"],
            blocks=[_BLOCKS[block["block_type"]].model_validate(block) for block in data["blocks"]],
            additional_kwargs=_revived(data["extras"]),
        )
        logprobs = data["logprobs"]
        return ChatResponse(message=message, logprobs=logprobs, additional_kwargs={"dispatch": match.note()})

    def text(self, response: ChatResponse) -> str:
        return response.message.content or ""

    def partial(self, response: ChatResponse, text: str, delta: str) -> ChatResponse:
        message = ChatMessage(role=response.message.role, content=text)
        return ChatResponse(message=message, delta=delta, additional_kwargs=dict(response.additional_kwargs))


class CompletionForm:
    name = "complete"

    def encode(self, response: CompletionResponse) -> bytes | None:
        if not response.text.strip():
            return None
        try:
            extras = _extras(response.additional_kwargs)
            return _dump(text=response.text, extras=extras, logprobs=_logprobs(response))
        except TypeError:
            return None

    def decode(self, match: Match) -> CompletionResponse:
        data = _load(match)
        extras = {**_revived(data["extras"]), "dispatch": match.note()}
        return CompletionResponse(text=data["text"], logprobs=data["logprobs"], additional_kwargs=extras)

    def text(self, response: CompletionResponse) -> str:
        return response.text

    def partial(self, response: CompletionResponse, text: str, delta: str) -> CompletionResponse:
        return CompletionResponse(text=text, delta=delta, additional_kwargs=dict(response.additional_kwargs))


CHAT: Form[ChatResponse] = ChatForm()
COMPLETION: Form[CompletionResponse] = CompletionForm()


def replay(form: Form[R], response: R) -> Iterator[R]:
    """A stored response as a stream; its last chunk is the whole response, tool calls included."""
    pieces = _PIECE.findall(form.text(response)) or [""]
    so_far = ""
    for piece in pieces[:-1]:
        so_far += piece
        yield form.partial(response, so_far, piece)
    response.delta = pieces[-1]
    yield response


def _dump(**fields: Any) -> bytes:
    return json.dumps({"version": _VERSION, **fields}, separators=(",", ":")).encode()


def _load(match: Match) -> dict[str, Any]:
    data = json.loads(match.entry.payload)
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        raise ValueError("an entry of another version")
    return data


def _logprobs(response: ChatResponse | CompletionResponse) -> list[list[dict[str, Any]]] | None:
    if response.logprobs is None:
        return None
    return [[LogProb.model_dump(one) for one in token] for token in response.logprobs]


def _extras(extras: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's additions without the token counts, which a hit does not cost. Raises `TypeError`."""
    return {name: _storable(name, value) for name, value in extras.items() if name not in _COUNTS}


def _storable(name: str, value: Any) -> Any:
    if name != "tool_calls" or not isinstance(value, list):
        return {"plain": plain(value)}
    return {"calls": [_call(call) for call in value]}


def _call(call: Any) -> list[Any]:
    if not isinstance(call, BaseModel):
        return ["", plain(call)]
    name = type(call).__name__
    if name not in _SDK_CALLS or not type(call).__module__.startswith("openai."):
        raise TypeError(f"{name} is not allow-listed")
    return [name, plain(call.model_dump())]


def _revived(extras: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_revived_call(*call) for call in stored["calls"]] if "calls" in stored else stored["plain"]
        for name, stored in extras.items()
    }


def _revived_call(name: str, fields: Any) -> Any:
    if not name:
        return fields
    return getattr(importlib.import_module(_SDK_CALLS[name]), name).model_validate(fields)
