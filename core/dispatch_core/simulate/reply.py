"""What the simulated model says and how a response of the OpenAI protocol carries it. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dispatch_core.simulate.answers import AnswerBook, normal
from dispatch_core.simulate.quota import Dimension, Level, Rejection
from dispatch_core.simulate.request import ApiError, ChatRequest
from dispatch_core.simulate.schema import example
from dispatch_core.simulate.text import count, cut

_UNITS: Mapping[Dimension, str] = {
    "requests": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
    "input_tokens": "input tokens per min (ITPM)",
    "output_tokens": "output tokens per min (OTPM)",
}
NOT_TOLD = "The context does not say that."
_HEADED: tuple[Dimension, ...] = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the simulated model says: text, or the arguments of a call to the tool `call`."""

    group: str
    text: str
    finish: Literal["stop", "length", "tool_calls"]
    call: str | None
    tokens: int


def compose(chat: ChatRequest, book: AnswerBook, *, grounded: bool = False) -> Reply:
    """The reply to a request: the answer of its group, as text or inside the JSON asked for, cut to size.

    If ``grounded``, a listed answer must stand in the prompt.
    """
    group = book.group_of(chat.asked)
    text = book.answer(group)
    if grounded and book.knows(group) and normal(text) not in normal(chat.prompt):
        text = NOT_TOLD
    if chat.schema is not None:
        try:
            text = json.dumps(example(chat.schema, text), ensure_ascii=False)
        except (AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError) as error:
            raise ApiError(400, "Invalid JSON schema.", code="invalid_value") from error
    whole = count(text)
    if chat.max_tokens is not None and whole > chat.max_tokens:
        return Reply(group, cut(text, chat.max_tokens), "length", chat.call, chat.max_tokens)
    return Reply(group, text, chat.call_ends if chat.call else "stop", chat.call, whole)


def refusal(rejection: Rejection, model: str, levels: Mapping[Dimension, Level]) -> ApiError:
    """The 429 for a rejection, with the header that says when to come back, unless it can never fit."""
    unit = _UNITS[rejection.dimension]
    where = f"for {model} in organization org-simulated on {unit}: Limit {rejection.limit}"
    headers = limit_headers(levels)
    if rejection.retry_after is None:
        message = f"Request too large {where}, Requested {rejection.requested}. "
        message += "The input or output tokens must be reduced in order to run successfully."
    else:
        headers |= _come_back(rejection.retry_after)
        message = f"Rate limit reached {where}, Used {rejection.used}, Requested {rejection.requested}. "
        message += f"Please try again in {duration(rejection.retry_after)}."
    return ApiError(429, message, kind=rejection.dimension, code="rate_limit_exceeded", headers=headers)


def throttled(seconds: float | None) -> ApiError:
    """A 429 that no quota explains; come back after `seconds` (None: it does not say when)."""
    headers = {} if seconds is None else _come_back(seconds)
    return ApiError(429, "Rate limit reached.", kind="requests", code="rate_limit_exceeded", headers=headers)


def _come_back(seconds: float) -> dict[str, str]:
    milliseconds = math.ceil(round(seconds * 1000, 3))
    return {"retry-after": str(math.ceil(milliseconds / 1000)), "retry-after-ms": str(milliseconds)}


def limit_headers(levels: Mapping[Dimension, Level]) -> dict[str, str]:
    """``x-ratelimit-*`` of requests and tokens where limited; limit and remaining are amounts per window."""
    headers = {}
    for name in _HEADED:
        if (level := levels.get(name)) is None:
            continue
        headers[f"x-ratelimit-limit-{name}"] = str(level.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(level.remaining)
        headers[f"x-ratelimit-reset-{name}"] = duration(level.reset)
    return headers


def duration(seconds: float) -> str:
    """Seconds as the API writes them, rounded up to the millisecond: ``120ms``, ``1.2s``, ``6m0s``."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    prefix = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{prefix}{rest / 1000:g}s"


def head(identity: str, created: int, chat: ChatRequest, reply: Reply, kind: str) -> dict[str, Any]:
    """The fields every response object and chunk begins with."""
    fingerprint = f"sim-{reply.group}"
    base = {"id": identity, "object": kind, "created": created, "model": chat.model}
    return {**base, "system_fingerprint": fingerprint}


def usage(chat: ChatRequest, completion_tokens: int) -> dict[str, int]:
    total = chat.prompt_tokens + completion_tokens
    return {
        "prompt_tokens": chat.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": total,
    }


def completion(identity: str, created: int, chat: ChatRequest, reply: Reply) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.call is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_call(identity, reply.call, reply.text)]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": reply.finish}
        for index in range(chat.n)
    ]
    return {
        **head(identity, created, chat, reply, "chat.completion"),
        "choices": choices,
        "usage": usage(chat, reply.tokens * chat.n),
    }


def first_delta(identity: str, reply: Reply) -> dict[str, Any]:
    """What opens a streamed choice: the role, and the name of the tool when one is called."""
    if reply.call is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {"index": 0, **_tool_call(identity, reply.call, "")}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def next_delta(reply: Reply, text: str) -> dict[str, Any]:
    """What one piece adds to a streamed choice."""
    if reply.call is None:
        return {"content": text}
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def _tool_call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    called = f"call_{identity.removeprefix('chatcmpl-')}"
    return {"id": called, "type": "function", "function": {"name": name, "arguments": arguments}}


def models(names: Sequence[str], created: int) -> dict[str, Any]:
    """The body of ``GET /v1/models``."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "simulator"} for name in names]
    return {"object": "list", "data": data}
