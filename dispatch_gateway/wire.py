"""What every wire format of the gateway can do: read a request, and turn answers into stored bytes and back."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from dispatch_core.messages import Message
from dispatch_core.types import Usage
from dispatch_gateway.errors import ApiError, need
from dispatch_gateway.sse import Event

VERSION = 1
_PIECE = re.compile(r".{1,24}(?:\s+|$)|.{1,24}", re.DOTALL)
_TOO_LARGE = 1 << 40
_DEEPEST = 128


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks.

    ``text`` is compared by meaning if ``semantic``, ``facts`` must match exactly; ``past`` is the reason why the call
    goes past the cache, if it does. ``prompt`` is every text that is charged. ``wants_usage``: the caller asked for
    the usage in a stream.
    """

    body: Mapping[str, Any]
    raw: bytes
    model: str
    text: str
    facts: Any
    prompt: str
    semantic: bool = False
    past: str | None = None
    max_tokens: int | None = None
    stream: bool = False
    wants_usage: bool = False


class Recorder(Protocol):
    """What is known of a streamed answer so far."""

    @property
    def usage(self) -> Usage | None: ...

    def take(self, event: Event) -> bool:
        """Note an event; False if it is not for the caller."""
        ...

    @property
    def ended(self) -> bool:
        """The terminal event was seen."""
        ...

    def payload(self) -> bytes | None:
        """The bytes to store; None for an answer that is cut off, withheld, empty or broken off."""
        ...


class Wire(Protocol):
    """One endpoint's format. ``operation`` is its name in OpenTelemetry's conventions."""

    name: str
    operation: str
    path: str
    provider: Literal["openai", "anthropic"]

    def read(self, body: Mapping[str, Any], raw: bytes) -> Call:
        """Raises `ApiError` for what no upstream could answer."""
        ...

    def sent(self, call: Call, model: str, *, stream_usage: bool) -> bytes:
        """The body for the upstream, where the model has this name."""
        ...

    def messages(self, call: Call) -> tuple[Message, ...]:
        """The prompt as a compressor sees it; nothing where it must stay as it is."""
        ...

    def shortened(self, call: Call, messages: Sequence[Message]) -> Call:
        """The call with what a compressor left of its messages. It asks the cache for nothing any more."""
        ...

    def usage(self, answer: Any) -> Usage | None: ...

    def payload(self, answer: Any) -> bytes | None:
        """The stored form of a whole answer; None if it must not be replayed."""
        ...

    def recorder(self, call: Call) -> Recorder: ...

    def whole(self, call: Call, payload: bytes) -> bytes:
        """A stored answer as the body of a response. Raises ValueError, TypeError or LookupError for what this
        version did not write."""
        ...

    def streamed(self, call: Call, payload: bytes) -> bytes:
        """The same as server-sent events."""
        ...

    def error(self, error: ApiError) -> bytes:
        """The body of an error, the same in a stream."""
        ...


def parsed(raw: bytes) -> dict[str, Any]:
    """The object in a request's body. Raises `ApiError`."""
    try:
        body: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "We could not parse the JSON body of your request.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The JSON body of your request must be an object.", code="invalid_json")
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST and _deep(body):
        said = f"The JSON body of your request is nested more than {_DEEPEST} levels deep."
        raise ApiError(400, said, code="invalid_json")
    return body


def _deep(body: dict[str, Any]) -> bool:
    """Whether what walks through it by recursion might not come to its end."""
    level: list[Any] = [body]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def changed(call: Call, body: Mapping[str, Any], prompt: str) -> Call:
    """A call with another body, and every text in it that is charged."""
    return replace(call, body=body, raw=dumped(body), prompt=prompt)


def loaded(payload: bytes, kind: str) -> dict[str, Any]:
    """The stored form of an answer of one kind. Raises ValueError."""
    data = json.loads(payload)
    if not isinstance(data, dict) or data.get("version") != VERSION or data.get("answers") != kind:
        raise ValueError("an entry of another version")
    return data


# Made once. What is written here was read from JSON, or made here: there are no circles in it.
_written = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def dumped(value: Any) -> bytes:
    return _written(value).encode()


def stored(kind: str, **fields: Any) -> bytes:
    return dumped({"version": VERSION, "answers": kind, **fields})


def pieces(text: str) -> list[str]:
    """A text as a model might have streamed it."""
    return _PIECE.findall(text)


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def model_of(body: Mapping[str, Any]) -> str:
    model = body.get("model")
    need(isinstance(model, str) and 0 < len(model) <= 256, "model", "the name of a model")
    return str(model)


def flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    need(value is None or isinstance(value, bool), name, "a boolean")
    return bool(value)


def tokens(value: Any) -> int:
    """A number of tokens in an answer: 0 for anything that is none."""
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE
    return int(value) if fine else 0


def most_tokens(body: Mapping[str, Any], *names: str) -> int | None:
    """The limit of the answer's length, if there is one that makes sense; the upstream judges the others."""
    return min(filter(None, map(tokens, map(body.get, names))), default=None)
