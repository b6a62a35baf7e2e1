"""Anthropic's messages, as a dialect. No I/O.

``max_tokens`` reserves nothing; output counts when it is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dispatch_core.simulate.dialect import Exchange, Levels
from dispatch_core.simulate.messages_request import parse_messages
from dispatch_core.simulate.quota import Dimension, Rejection
from dispatch_core.simulate.request import ApiError, ChatRequest

_KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_NAMES: Mapping[Dimension, str] = {
    "requests": "requests",
    "tokens": "tokens",
    "input_tokens": "input-tokens",
    "output_tokens": "output-tokens",
}
_ENDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Messages:
    """``POST /v1/messages``: JSON, or named events from ``message_start`` to ``message_stop``."""

    identity = "msg_"

    def parse(self, body: bytes) -> ChatRequest:
        return parse_messages(body)

    def reserved(self, chat: ChatRequest) -> int:
        return chat.prompt_tokens

    def limits(self, levels: Levels, now: float) -> dict[str, str]:
        headers = {}
        for dimension, level in levels.items():
            name = f"anthropic-ratelimit-{_NAMES[dimension]}"
            headers[f"{name}-limit"] = str(level.limit)
            headers[f"{name}-remaining"] = str(level.remaining)
            full = datetime.fromtimestamp(math.ceil(now + level.reset), UTC)
            headers[f"{name}-reset"] = full.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def refusal(self, rejection: Rejection, model: str, levels: Levels, now: float) -> ApiError:
        unit = f"{_NAMES[rejection.dimension].replace('-', ' ')} per minute"
        message = f"This request would exceed your organization's rate limit of {rejection.limit} {unit}"
        headers = self.limits(levels, now)
        if rejection.retry_after is not None:
            headers["retry-after"] = str(math.ceil(rejection.retry_after))
        return ApiError(429, f"{message} (model: {model}).", headers=headers)

    def error(self, error: ApiError) -> dict[str, Any]:
        kind = _KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        told = {"type": kind, "message": str(error)}
        return {"type": "error", "error": told, "request_id": error.headers.get("request-id")}

    def whole(self, exchange: Exchange) -> dict[str, Any]:
        reply = exchange.reply
        return {
            **_message(exchange, reply.tokens),
            "content": [_block(exchange, reply.text)],
            "stop_reason": _ENDS[reply.finish],
        }

    def opening(self, exchange: Exchange) -> str:
        start = {"type": "message_start", "message": _message(exchange, 1)}
        block = {"type": "content_block_start", "index": 0, "content_block": _block(exchange, "")}
        return _events(start, block, {"type": "ping"})

    def piece(self, exchange: Exchange, text: str) -> str:
        delta = {"type": "text_delta", "text": text}
        if exchange.reply.call is not None:
            delta = {"type": "input_json_delta", "partial_json": text}
        return _events({"type": "content_block_delta", "index": 0, "delta": delta})

    def ending(self, exchange: Exchange) -> str:
        delta = {"stop_reason": _ENDS[exchange.reply.finish], "stop_sequence": None}
        usage = {"output_tokens": exchange.reply.tokens}
        return _events(
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        )

    def broken(self, error: ApiError) -> str:
        return _events(self.error(error))


def _events(*events: Mapping[str, Any]) -> str:
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one, separators=(',', ':'))}\n\n" for one in events)


def _message(exchange: Exchange, output_tokens: int) -> dict[str, Any]:
    usage = {
        "input_tokens": exchange.chat.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }
    return {
        "id": exchange.identity,
        "type": "message",
        "role": "assistant",
        "model": exchange.chat.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _block(exchange: Exchange, text: str) -> dict[str, Any]:
    """The one content block of an answer. Arguments that ``max_tokens`` has cut are no object, so there are none."""
    reply = exchange.reply
    if reply.call is None:
        return {"type": "text", "text": text}
    called = f"toolu_{exchange.identity.removeprefix('msg_')}"
    whole = bool(text) and reply.finish != "length"
    return {"type": "tool_use", "id": called, "name": reply.call, "input": json.loads(text) if whole else {}}
