"""One call of a chat model: what it asks, what it will probably cost, and what it holds until it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessageChunk, BaseMessage

from dispatch_core.messages import Message as Shortened
from dispatch_core.ports import Limiter, Reservation
from dispatch_core.types import Cost, Usage
from langchain_dispatch.exchange import Exchange
from langchain_dispatch.shape import Shape, shape_of
from langchain_dispatch.turns import Message

_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample")
_TELLING = ("text", "thinking", "reasoning", "content")
_PICTURED = ("image_url", "source", "data", "base64", "file", "input_audio")
_IMAGE = "x" * 3200  # about 800 tokens, what providers charge for a picture of ordinary size


@dataclass(slots=True)
class Call:
    """One announced call of a chat model; ``format`` is what LangChain tells tracers of structured output.

    ``asked`` once a cache has looked it up, under ``key``; ``claimed`` once a limiter has reserved for it; ``ended``
    once nothing more will come of it; ``retried`` if a failed attempt is not its end. ``shortened`` is what a
    compressor made of its messages.
    """

    run_id: UUID
    messages: Sequence[BaseMessage]
    params: dict[str, Any]
    format: Any = None
    batch: int = 1
    asked: bool = False
    claimed: bool = False
    ended: bool = False
    retried: bool = False
    shortened: Sequence[Shortened] | None = None
    key: str = ""
    exchange: Exchange | None = None
    chunks: list[AIMessageChunk] = field(default_factory=list)
    limiter: Limiter | None = None
    reservation: Reservation | None = None
    streamed: list[str] = field(default_factory=list)
    sent: float = 0.0
    first_token: float | None = None
    unwatch: Callable[[], object] | None = None

    def asks(self, messages: Sequence[Message]) -> bool:
        """Are these the messages of this call? By what costs nothing to compare."""
        if len(messages) != len(self.messages):
            return False
        said = self.messages[-1].content if self.messages else ""
        return not isinstance(said, str) or said == messages[-1]["kwargs"]["content"]

    def shape(self) -> Shape:
        return shape_of(self.params, self.format)

    def cost(self, limiter: Limiter) -> Cost:
        """The expected cost of messages and tools together."""
        if self.shortened is None:
            parts = [_text(message.content) for message in self.messages]
            calling = self.messages
        else:
            parts = [message.text for message in self.shortened]
            parts += [
                _block_text(part.source)
                for message in self.shortened
                for part in message.parts
                if part.kind == "other" and isinstance(part.source, dict)
            ]
            calling = [message.source for message in self.shortened]
        parts += [json.dumps(call["args"], default=str) for m in calling for call in getattr(m, "tool_calls", ())]
        tools = self.params.get("tools")
        if tools:
            parts.append(json.dumps(tools, default=str))
        given = (self.params.get(name) for name in _MAX_TOKENS)
        most = next((limit for limit in given if isinstance(limit, int) and limit > 0), None)
        model = self.params.get("model") or self.params.get("model_name") or ""
        return limiter.estimate("\n".join(parts), max_tokens=most, model=str(model))

    def came(self, token: Any, chunk: Any) -> None:
        """A piece of the answer."""
        if self.reservation is not None:
            if self.first_token is None:
                self.first_token = time.monotonic() - self.sent
            if isinstance(token, str):
                self.streamed.append(token)
        message = getattr(chunk, "message", None)
        if self.exchange is not None and isinstance(message, AIMessageChunk):
            self.chunks.append(message)

    def usage_of_text(self) -> Usage | None:
        """Of a stream without usage: the estimated prompt plus the text that came."""
        if self.limiter is None or self.reservation is None or not self.streamed:
            return None
        output = self.limiter.estimate("".join(self.streamed), max_tokens=0).input_tokens
        return Usage(self.reservation.cost.input_tokens, output)

    def settle(self, usage: Usage | None, headers: Mapping[str, str] | None = None) -> None:
        if self.reservation is not None:
            self.reservation.settle(usage, headers, first_token=self.first_token)

    def start_over(self) -> None:
        """After an attempt that failed: nothing is held for the next, and nothing of it has come."""
        self.settle(None)
        self.limiter = self.reservation = self.first_token = None
        self.streamed.clear()

    def end(self) -> None:
        """Let go of all but the reservation: who waits for the answer is freed, unless it has it already."""
        # Its place among the calls of its context stays until the next is announced there.
        self.asked = self.claimed = self.ended = True
        self.messages = ()
        if self.exchange is not None:
            self.exchange.abandon()
        if self.unwatch is not None:
            self.unwatch()


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict):
            texts.append(_block_text(block))
    return "\n".join(texts)


def _block_text(block: dict[str, Any]) -> str:
    """The text of a content block, of the same length in tokens as far as we can tell."""
    told = next((block[name] for name in _TELLING if isinstance(block.get(name), str)), None)
    if told is not None:
        return str(told)
    # Base64 data would be counted as text of its length.
    pictured = any(name in block for name in _PICTURED) or "image" in str(block.get("type"))
    return _IMAGE if pictured else json.dumps(block, default=str)
