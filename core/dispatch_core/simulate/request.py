"""What a chat request of the OpenAI protocol asks, read strictly. No I/O.

Prompt tokens are the tokens of every message's text (and of the tool calls it repeats), four per message,
three for the start of the reply, and the tokens of the JSON of the declared tools. Parts of a message that
are not text count nothing. Completion tokens are those of the text, or of a tool call's arguments, times
``n``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dispatch_core.simulate.text import count

MESSAGE_TOKENS = 4
REPLY_TOKENS = 3
MAX_CHOICES = 128
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class ApiError(Exception):
    """An answer that is an error; `status`, `body` and `headers` are what goes over the wire."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid request. ``call`` is the tool to call; ``schema`` that of its arguments or of the answer."""

    model: str
    prompt: str
    asked: str
    prompt_tokens: int
    max_tokens: int | None
    n: int
    stream: bool
    include_usage: bool
    call: str | None = None
    call_ends: Literal["stop", "tool_calls"] = "stop"
    schema: Mapping[str, Any] | None = None

    @property
    def reserved(self) -> int:
        """Tokens the quota charges on arrival: the prompt, and ``max_tokens`` for each choice if given."""
        return self.prompt_tokens + (self.max_tokens or 0) * self.n


def need(condition: bool, param: str, expected: str, code: str = "invalid_type") -> None:
    """Raise the 400 of a parameter that is not as expected."""
    if not condition:
        raise ApiError(400, f"Invalid value for '{param}': expected {expected}.", param=param, code=code)


def is_count(value: Any, most: float = math.inf) -> bool:
    """Is it an integer from 1 to ``most``?"""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def parsed(body: bytes) -> dict[str, Any]:
    """The object in a request body."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(data, dict):
        raise ApiError(400, "The JSON body of your request must be an object.")
    return data


def model_of(data: Mapping[str, Any]) -> str:
    """The model that a request names."""
    if not data.get("model"):
        raise ApiError(400, "you must provide a model parameter")
    need(isinstance(data["model"], str), "model", "a string")
    return str(data["model"])


def parse_chat(body: bytes) -> ChatRequest:
    """Read a request body. Raises `ApiError` (400) in the words of the API for anything it cannot answer."""
    data = parsed(body)
    model = model_of(data)
    messages = data.get("messages")
    if messages is None:
        code = "missing_required_parameter"
        raise ApiError(400, "Missing required parameter: 'messages'.", param="messages", code=code)
    need(isinstance(messages, list), "messages", "an array of objects")
    need(bool(messages), "messages", "an array with at least one message", "empty_array")
    texts = [_message_text(message, f"messages[{index}]") for index, message in enumerate(messages)]
    roles = [message["role"] for message in messages]
    last = len(roles) - 1 - roles[::-1].index("user") if "user" in roles else len(roles) - 1
    stream, options = stream_of(data)
    name, ends, schema = _structure(data)
    prompt_tokens = sum(map(count, texts)) + MESSAGE_TOKENS * len(texts) + REPLY_TOKENS
    if data.get("tools"):
        prompt_tokens += count(json.dumps(data["tools"], ensure_ascii=False))
    return ChatRequest(
        model=model,
        prompt="\n".join(texts),
        asked=texts[last],
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(data),
        n=_choices(data),
        stream=stream,
        include_usage=options,
        call=name,
        call_ends=ends,
        schema=schema,
    )


def _message_text(message: Any, where: str) -> str:
    need(isinstance(message, dict), where, "an object")
    role = message.get("role")
    need(role in ROLES, f"{where}.role", f"one of {', '.join(ROLES)}", "invalid_value")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text", "") if isinstance(part, dict) else None for part in content]
        need(all(isinstance(part, str) for part in parts), f"{where}.content", "an array of content parts")
        content = "\n".join(part for part in parts if part)
    calls = message.get("tool_calls")
    silent = content is None and role == "assistant" and not {"tool_calls", "refusal"}.isdisjoint(message)
    need(silent or isinstance(content, str), f"{where}.content", "a string")
    called = json.dumps(calls, ensure_ascii=False) if calls else ""
    return f"{content or ''}\n{called}" if called else content or ""


def _max_tokens(data: Mapping[str, Any]) -> int | None:
    limits = []
    for name in ("max_completion_tokens", "max_tokens"):
        if (value := data.get(name)) is not None:
            need(is_count(value), name, "an integer of at least 1")
            limits.append(value)
    return min(limits, default=None)


def _choices(data: Mapping[str, Any]) -> int:
    n = data.get("n")
    need(n is None or is_count(n, MAX_CHOICES), "n", f"an integer from 1 to {MAX_CHOICES}")
    return n or 1


def stream_of(data: Mapping[str, Any]) -> tuple[bool, bool]:
    """Is it streamed, and is its usage to be told at the end?"""
    stream, options = data.get("stream"), data.get("stream_options")
    need(stream is None or isinstance(stream, bool), "stream", "a boolean")
    need(options is None or isinstance(options, dict), "stream_options", "an object")
    need(options is None or bool(stream), "stream_options", "'stream' to be true", "invalid_value")
    return bool(stream), bool(options and options.get("include_usage"))


def _structure(
    data: Mapping[str, Any],
) -> tuple[str | None, Literal["stop", "tool_calls"], Mapping[str, Any] | None]:
    """The tool to call and how that ends, and the schema of its arguments or of the answer."""
    tools, choice, shape = data.get("tools"), data.get("tool_choice"), data.get("response_format")
    need(tools is None or isinstance(tools, list), "tools", "an array")
    need(choice is None or isinstance(choice, str | dict), "tool_choice", "a string or an object")
    need(choice in (None, "none") or bool(tools), "tool_choice", "'tools' as well", "invalid_value")
    functions = {}
    for index, tool in enumerate(tools or ()):
        function: Any = tool.get("function") if isinstance(tool, dict) else None
        named = isinstance(function, dict) and isinstance(function.get("name"), str)
        need(named, f"tools[{index}].function", "an object with a name")
        functions[function["name"]] = function.get("parameters") or {}
    if choice == "required":
        name = next(iter(functions))
        return name, "tool_calls", functions[name]
    if isinstance(choice, dict) and choice.get("type") == "function":
        chosen = choice.get("function")
        name = chosen.get("name") if isinstance(chosen, dict) else None
        need(name in functions, "tool_choice", "the name of one of 'tools'", "invalid_value")
        return name, "stop", functions[name]
    return None, "stop", _answer_schema(shape)


def _answer_schema(shape: Any) -> Mapping[str, Any] | None:
    need(shape is None or isinstance(shape, dict), "response_format", "an object")
    match (shape or {}).get("type", "text"):
        case "text":
            return None
        case "json_object":
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
        case "json_schema":
            wrapped = shape.get("json_schema")
            schema = wrapped.get("schema") if isinstance(wrapped, dict) else None
            need(isinstance(schema, dict), "response_format.json_schema.schema", "an object")
            return schema
        case _:
            raise ApiError(400, "Unknown response_format.", param="response_format", code="invalid_value")
