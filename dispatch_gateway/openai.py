"""What OpenAI's endpoints have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatch_core.types import Usage
from dispatch_gateway.errors import ApiError, need
from dispatch_gateway.sse import Event, event
from dispatch_gateway.wire import Call, Wire, dumped, tokens

DONE = event(b"[DONE]")
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
OURS = frozenset({"cache"})
"""Of a request's body, what is for the gateway alone."""

_TRANSPORT = frozenset(
    {
        *("stream", "stream_options", "model", "user", "safety_identifier", "metadata", "store"),
        *("prompt_cache_key", "prompt_cache_retention", "service_tier"),
    }
)
"""How an answer travels, who asks and what is noted about it: nothing that the answer depends on."""

_LEFT_OUT = _TRANSPORT | OURS


def options(body: Mapping[str, Any], *asked: str) -> dict[str, Any]:
    """Everything else in a body that decides the answer. What is null is as if it were not there."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and name not in _LEFT_OUT and name not in asked
    }


def wants_usage(body: Mapping[str, Any]) -> bool:
    asked = body.get("stream_options")
    need(asked is None or isinstance(asked, dict), "stream_options", "an object")
    return bool(asked and asked.get("include_usage"))


def sent(call: Call, model: str, *, stream_usage: bool) -> bytes:
    """The body as it came, unless there is something to change: a stream's usage is always asked for."""
    asks_usage = stream_usage and call.stream and not call.wants_usage
    if model == call.model and not asks_usage and OURS.isdisjoint(call.body):
        return call.raw
    body = {name: value for name, value in call.body.items() if name not in OURS}
    if asks_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    body["model"] = model
    return dumped(body)


def usage_of(answer: Any) -> Usage | None:
    said = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(said, dict):
        return None
    usage = Usage(tokens(said.get("prompt_tokens")), tokens(said.get("completion_tokens")))
    return usage if usage.total else None


def error(error: ApiError) -> bytes:
    said = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return dumped({"error": said})


class ChoiceRecorder:
    """Puts the pieces of every choice of a stream together. ``kept`` are the fields of an answer beside them."""

    kept: tuple[str, ...] = ("model",)

    def __init__(self, wire: Wire, call: Call) -> None:
        self._wire = wire
        self._call = call
        self._answer: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._broken = False
        self.ended = False
        self.usage: Usage | None = None

    def take(self, event: Event) -> bool:
        if event.data == b"[DONE]":
            self.ended = True
            return True
        chunk = event.json()
        if not isinstance(chunk, dict):
            # A comment that keeps the connection alive, most likely.
            self._broken = self._broken or bool(event.data)
            return True
        self._broken = self._broken or "error" in chunk
        self.usage = self._wire.usage(chunk) or self.usage
        self._answer |= {name: chunk[name] for name in self.kept if chunk.get(name) is not None}
        choices = chunk.get("choices")
        try:
            for choice in choices if isinstance(choices, list) else ():
                self._add(choice)
        except (TypeError, KeyError, AttributeError, RecursionError):
            # Of another shape than is known here: it is passed on, and not kept.
            self._broken = True
        return self._call.wants_usage or choices != [] or not chunk.get("usage")

    def payload(self) -> bytes | None:
        if self._broken or not self.ended:
            return None
        choices = [self._choices[index] for index in sorted(self._choices)]
        return self._wire.payload({**self._answer, "choices": choices})

    def _add(self, choice: Any) -> None:
        raise NotImplementedError
