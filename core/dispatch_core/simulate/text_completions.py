"""OpenAI's completions of plain text, the API before chat, as a dialect. No I/O."""

from __future__ import annotations

from typing import Any

from dispatch_core.simulate import reply as wire
from dispatch_core.simulate.completions import ChatCompletions, event
from dispatch_core.simulate.dialect import Exchange
from dispatch_core.simulate.request import (
    MAX_CHOICES,
    ApiError,
    ChatRequest,
    is_count,
    model_of,
    need,
    parsed,
    stream_of,
)
from dispatch_core.simulate.text import count

DEFAULT_TOKENS = 16
"""What the API takes for ``max_tokens`` when it is not given."""


class TextCompletions(ChatCompletions):
    """``POST /v1/completions``, of one prompt."""

    identity = "cmpl-"

    def parse(self, body: bytes) -> ChatRequest:
        data = parsed(body)
        model, n = model_of(data), data.get("n")
        prompt, tokens = _prompt(data.get("prompt"))
        most = data.get("max_tokens")
        need(most is None or is_count(most), "max_tokens", "an integer of at least 1")
        need(n is None or is_count(n, MAX_CHOICES), "n", f"an integer from 1 to {MAX_CHOICES}")
        stream, include_usage = stream_of(data)
        return ChatRequest(
            model=model,
            prompt=prompt,
            asked=prompt,
            prompt_tokens=tokens,
            max_tokens=most or DEFAULT_TOKENS,
            n=n or 1,
            stream=stream,
            include_usage=include_usage,
        )

    def whole(self, exchange: Exchange) -> dict[str, Any]:
        chat, reply = exchange.chat, exchange.reply
        choices = [_choice(index, reply.text, reply.finish) for index in range(chat.n)]
        return {**_head(exchange), "choices": choices, "usage": wire.usage(chat, reply.tokens * chat.n)}

    def opening(self, exchange: Exchange) -> str:
        return ""

    def piece(self, exchange: Exchange, text: str) -> str:
        return _chunks(exchange, text, None)

    def ending(self, exchange: Exchange) -> str:
        chat, reply = exchange.chat, exchange.reply
        closing = _chunks(exchange, "", reply.finish)
        if chat.include_usage:
            closing += event({**_head(exchange), "choices": [], "usage": wire.usage(chat, reply.tokens * chat.n)})
        return closing + "data: [DONE]\n\n"


def _prompt(given: Any) -> tuple[str, int]:
    """The text of the one prompt, and its tokens. Tokens are words to a simulator that has no vocabulary."""
    if given is None:
        code = "missing_required_parameter"
        raise ApiError(400, "Missing required parameter: 'prompt'.", param="prompt", code=code)
    one = given[0] if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str | list) else given
    if isinstance(one, list):
        whole = bool(one) and all(isinstance(token, int) for token in one)
        need(whole, "prompt", "one prompt: a string or an array of tokens", "invalid_value")
        return " ".join(map(str, one)), len(one)
    need(isinstance(one, str), "prompt", "a string or an array of tokens")
    return one, count(one)


def _head(exchange: Exchange) -> dict[str, Any]:
    return wire.head(exchange.identity, exchange.created, exchange.chat, exchange.reply, "text_completion")


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _chunks(exchange: Exchange, text: str, finish: str | None) -> str:
    head = _head(exchange)
    return "".join(event({**head, "choices": [_choice(index, text, finish)]}) for index in range(exchange.chat.n))
