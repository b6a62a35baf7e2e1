"""OpenAI's chat completions, as a dialect. No I/O."""

from __future__ import annotations

import json
from typing import Any

from dispatch_core.simulate import reply as wire
from dispatch_core.simulate.dialect import Exchange, Levels
from dispatch_core.simulate.quota import Rejection
from dispatch_core.simulate.request import ApiError, ChatRequest, parse_chat


class ChatCompletions:
    """``POST /v1/chat/completions``: JSON, or chunks and ``[DONE]``."""

    identity = "chatcmpl-"

    def parse(self, body: bytes) -> ChatRequest:
        return parse_chat(body)

    def reserved(self, chat: ChatRequest) -> int:
        return chat.reserved

    def limits(self, levels: Levels, now: float) -> dict[str, str]:
        return wire.limit_headers(levels)

    def refusal(self, rejection: Rejection, model: str, levels: Levels, now: float) -> ApiError:
        return wire.refusal(rejection, model, levels)

    def error(self, error: ApiError) -> dict[str, Any]:
        return error.body

    def whole(self, exchange: Exchange) -> dict[str, Any]:
        return wire.completion(exchange.identity, exchange.created, exchange.chat, exchange.reply)

    def opening(self, exchange: Exchange) -> str:
        return _chunks(exchange, wire.first_delta(exchange.identity, exchange.reply), None)

    def piece(self, exchange: Exchange, text: str) -> str:
        return _chunks(exchange, wire.next_delta(exchange.reply, text), None)

    def ending(self, exchange: Exchange) -> str:
        chat, reply = exchange.chat, exchange.reply
        closing = _chunks(exchange, {}, reply.finish)
        if chat.include_usage:
            used = wire.usage(chat, reply.tokens * chat.n)
            closing += event({**_head(exchange), "choices": [], "usage": used})
        return closing + "data: [DONE]\n\n"

    def broken(self, error: ApiError) -> str:
        return event(error.body)


def _chunks(exchange: Exchange, delta: dict[str, Any], finish: str | None) -> str:
    base = _head(exchange)
    if exchange.chat.include_usage:
        base["usage"] = None
    choice = {"delta": delta, "logprobs": None, "finish_reason": finish}
    return "".join(event({**base, "choices": [{"index": i, **choice}]}) for i in range(exchange.chat.n))


def _head(exchange: Exchange) -> dict[str, Any]:
    return wire.head(exchange.identity, exchange.created, exchange.chat, exchange.reply, "chat.completion.chunk")


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
