"""Messages of LangChain as a compressor sees them, and back.

What a compressor did not touch comes back as the very same object; of what it did, only the texts differ.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from dispatch_core._flow import Flow, arun, run
from dispatch_core.compress import Careful, estimated
from dispatch_core.messages import Message, Part, Role
from langchain_dispatch.call import Call
from langchain_dispatch.observer import observer
from langchain_dispatch.rate_limiter import TokenRateLimiter

M = TypeVar("M", bound=BaseChatModel)

Prepare = Callable[[Sequence[BaseMessage]], Flow[list[BaseMessage]]]
"""What is done to the messages of a call before they are sent."""

_ROLES: Mapping[type[BaseMessage], Role] = {
    SystemMessage: "system",
    HumanMessage: "user",
    ToolMessage: "tool",
    FunctionMessage: "tool",
}
_NAMED: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "human": "user"}
_MADE: Mapping[Role, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
_PICTURED = ("image_url", "source", "data", "base64", "file", "input_audio")
_PICTURE_TOKENS = 800


def preparing(careful: Careful) -> Prepare:
    """What makes messages shorter that are about to be sent; what the limiter had made shorter is not done twice."""

    def prepare(messages: Sequence[BaseMessage]) -> Flow[list[BaseMessage]]:
        call = observer().current()
        known = None if call is None or call.shortened is None else _of_these(messages, call.messages, call.shortened)
        return from_core((yield from careful.shortened(to_core(messages))) if known is None else known)

    return prepare


class ShorteningRateLimiter(TokenRateLimiter):
    """A limiter for one call of a model: it reserves what the shortened messages need."""

    def __init__(self, limiter: TokenRateLimiter, careful: Careful) -> None:
        # All that the limiter of the model holds, and not a second one with a quota and a line of its own.
        self.__dict__.update(limiter.__dict__)
        self._careful = careful

    def acquiring(self, call: Call | None, *, blocking: bool = True) -> Flow[bool]:
        if call is not None and call.shortened is None:
            call.shortened = yield from self._careful.shortened(to_core(call.messages))
        return (yield from super().acquiring(call, blocking=blocking))


def shortening(model: M, careful: Careful | None) -> M:
    """The model for one call, whose limiter waits for the tokens that will be sent."""
    limiter = model.rate_limiter
    if careful is None or not isinstance(limiter, TokenRateLimiter) or isinstance(limiter, ShorteningRateLimiter):
        return model
    return model.model_copy(update={"rate_limiter": ShorteningRateLimiter(limiter, careful)})


def _of_these(
    messages: Sequence[BaseMessage], told: Sequence[BaseMessage], shortened: Sequence[Message]
) -> list[Message] | None:
    """What was made of the messages that LangChain told its callbacks, as made of those that it sends; None if they
    differ: pictures are told in another form."""
    if len(messages) != len(told) or any(a.content != b.content for a, b in zip(messages, told, strict=True)):
        return None
    sent = {id(one): other for one, other in zip(told, messages, strict=True)}
    return [replace(one, source=sent.get(id(one.source))) for one in shortened]


def to_core(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Each content block becomes a part; what is no text is one of the kind "other"."""
    return tuple(map(_message, messages))


def from_core(messages: Sequence[Message]) -> list[BaseMessage]:
    """The messages that `to_core` was given, with the texts of these. Blocks that lost all their text are left out;
    a message that comes from elsewhere is made anew."""
    return [_made(message) if message.source is None else _restored(message) for message in messages]


def compressing(kind: type[BaseChatModel], names: Mapping[str, Any], prepare: Prepare) -> dict[str, Any]:
    """What asks the provider in a class of models, with prepared messages: its own methods, or those of ``names``,
    which take their place. What the class does not have is not made up: LangChain asks for it."""
    made: dict[str, Any] = {}
    for name, wrap in _WRAPS.items():
        plain = getattr(kind, name)
        if plain is not getattr(BaseChatModel, name):
            made[name] = wrap(names.get(name, plain), prepare)
    return made


def _generate(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    @wraps(plain)
    def generate(model: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        return plain(model, run(prepare(messages)), *args, **kwargs)

    return generate


def _agenerate(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    @wraps(plain)
    async def agenerate(model: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        return await plain(model, await arun(prepare(messages)), *args, **kwargs)

    return agenerate


def _stream(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    @wraps(plain)
    def stream(model: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[Any]:
        yield from plain(model, run(prepare(messages)), *args, **kwargs)

    return stream


def _astream(plain: Callable[..., Any], prepare: Prepare) -> Callable[..., Any]:
    @wraps(plain)
    async def astream(
        model: BaseChatModel, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async with aclosing(plain(model, await arun(prepare(messages)), *args, **kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    return astream


_WRAPS = {"_generate": _generate, "_agenerate": _agenerate, "_stream": _stream, "_astream": _astream}


def _message(message: BaseMessage) -> Message:
    calls, tokens = _calls(message)
    return Message(_role(message), _parts(message.content), calls, _answers(message), tokens, message)


def _role(message: BaseMessage) -> Role:
    if isinstance(message, ChatMessage):
        return _NAMED.get(message.role, "assistant")
    return next((role for kind, role in _ROLES.items() if isinstance(message, kind)), "assistant")


def _parts(content: Any) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Part(content),)
    return tuple(_part(block) for block in content)


def _part(block: Any) -> Part:
    if isinstance(block, str):
        return Part(block, source=block)
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return Part(block["text"], source=block)
    pictured = any(name in block for name in _PICTURED) or "image" in str(block.get("type"))
    tokens = _PICTURE_TOKENS if pictured else estimated(json.dumps(block, default=str))
    return Part(kind="other", tokens=tokens, source=block)


def _calls(message: BaseMessage) -> tuple[tuple[str, ...], int]:
    """The ids of the tool calls of a message, and the tokens of their arguments."""
    if not isinstance(message, AIMessage):
        return (), 0
    made = [*message.tool_calls, *message.invalid_tool_calls]
    ids = [str(call["id"]) for call in made if call.get("id")]
    older = message.additional_kwargs.get("function_call")
    if isinstance(older, Mapping):
        ids.append(f"function {older.get('name')}")
    return tuple(ids), sum(estimated(json.dumps(call["args"], default=str)) for call in made)


def _answers(message: BaseMessage) -> tuple[str, ...]:
    if isinstance(message, ToolMessage):
        return (message.tool_call_id,)
    if isinstance(message, FunctionMessage):
        return (f"function {message.name}",)
    blocks = message.content if isinstance(message.content, list) else []
    results = (block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result")
    return tuple(str(block["tool_use_id"]) for block in results if block.get("tool_use_id"))


def _restored(message: Message) -> BaseMessage:
    source: BaseMessage = message.source
    before = _parts(source.content)
    if message.parts == before:
        return source
    if isinstance(source.content, str):
        return source.model_copy(update={"content": message.parts[0].text})
    pairs = [(part, old.source) for part, old in zip(message.parts, before, strict=True) if part.text or not old.text]
    return source.model_copy(update={"content": [_block(part, block) for part, block in pairs]})


def _block(part: Part, block: Any) -> Any:
    if part.kind == "other":
        return block
    return part.text if isinstance(block, str) else {**block, "text": part.text}


def _made(message: Message) -> BaseMessage:
    kind = _MADE.get(message.role)
    if kind is not None:
        return kind(content=message.text)
    return ToolMessage(content=message.text, tool_call_id=message.answers[0] if message.answers else "")
