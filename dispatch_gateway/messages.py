"""``/v1/messages``: Anthropic's format, to an upstream of Anthropic's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dispatch_core.compress.known import question_in
from dispatch_core.messages import Message
from dispatch_core.types import Usage
from dispatch_gateway import prompts
from dispatch_gateway.errors import ApiError, need
from dispatch_gateway.sse import Event, event
from dispatch_gateway.turns import Unstable, all_text, text_of, turns_of
from dispatch_gateway.wire import (
    Call,
    Recorder,
    changed,
    dumped,
    flag,
    loaded,
    model_of,
    most_tokens,
    new_id,
    pieces,
    stored,
    tokens,
)

_TRANSPORT = frozenset({"stream", "model", "metadata", "service_tier", "cache", "messages"})
_EXACT = ("tools", "container", "output_format", "output_config")
_WORLDLY = ("web_search", "web_fetch", "computer", "bash", "code_execution", "text_editor", "memory", "mcp")
"""How the types of tools begin that act on the world, or look at it."""

_FINISHED = frozenset({"end_turn", "tool_use", "stop_sequence"})
_NO_USAGE = {"input_tokens": 0, "output_tokens": 0}
_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_LATER_KINDS = {413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}


class MessagesWire:
    name = "messages"
    operation = "chat"
    path = "/messages"
    provider: Literal["openai", "anthropic"] = "anthropic"

    def read(self, body: Mapping[str, Any], raw: bytes) -> Call:
        messages = body.get("messages")
        need(isinstance(messages, list) and bool(messages), "messages", "an array with at least one message")
        assert isinstance(messages, list)
        options = {name: value for name, value in body.items() if name not in _TRANSPORT and value is not None}
        past = _past(body)
        try:
            text, turns, semantic = _asked(turns_of(messages))
            options = {name: _without_marks(value) for name, value in options.items()}
        except Unstable as unstable:
            text, turns, semantic, past = "", [], False, str(unstable)
        return Call(
            body=body,
            raw=raw,
            model=model_of(body),
            text=text,
            facts={"wire": self.name, "turns": turns, "options": options},
            prompt=_charged(body),
            semantic=semantic and not any(body.get(name) for name in _EXACT),
            past=past,
            max_tokens=most_tokens(body, "max_tokens"),
            stream=flag(body, "stream"),
            wants_usage=True,
        )

    def sent(self, call: Call, model: str, *, stream_usage: bool) -> bytes:
        if model == call.model and "cache" not in call.body:
            return call.raw
        return dumped({**{name: value for name, value in call.body.items() if name != "cache"}, "model": model})

    def messages(self, call: Call) -> tuple[Message, ...]:
        if b"cache_control" in call.raw:
            # The provider's own prompt cache knows the prompt as it is, and is cheaper than a shorter one.
            return ()
        system = call.body.get("system")
        above = [] if system is None else [{"role": "system", "content": system}]
        return prompts.to_core([*above, *call.body["messages"]])

    def shortened(self, call: Call, messages: Sequence[Message]) -> Call:
        turns = prompts.from_core(messages)
        body = dict(call.body)
        if body.get("system") is not None:
            body["system"] = turns.pop(0)["content"]
        body["messages"] = turns
        return changed(call, body, _charged(body))

    def usage(self, answer: Any) -> Usage | None:
        said = answer.get("usage") if isinstance(answer, dict) else None
        if not isinstance(said, dict):
            return None
        usage = Usage(sum(tokens(said.get(name)) for name in _INPUTS), tokens(said.get("output_tokens")))
        return usage if usage.total else None

    def payload(self, answer: Any) -> bytes | None:
        if not isinstance(answer, dict) or answer.get("stop_reason") not in _FINISHED:
            return None
        content = answer.get("content")
        if not isinstance(content, list) or not any(map(_says, content)):
            return None
        kept = {name: answer.get(name) for name in ("model", "role", "stop_reason", "stop_sequence")}
        return stored(self.name, content=content, about=kept)

    def recorder(self, call: Call) -> Recorder:
        return _MessagesRecorder(self)

    def whole(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        return dumped({**_head(data), "content": _reissued(data["content"]), "usage": _NO_USAGE})

    def streamed(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        begun = {**_head(data), "content": [], "stop_reason": None, "stop_sequence": None, "usage": _NO_USAGE}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
        for index, block in enumerate(_reissued(data["content"])):
            empty, deltas = _deltas(block)
            events.append({"type": "content_block_start", "index": index, "content_block": empty})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        ending = {name: data["about"].get(name) for name in ("stop_reason", "stop_sequence")}
        events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 0}})
        events.append({"type": "message_stop"})
        return b"".join(event(dumped(one), one["type"]) for one in events)

    def error(self, error: ApiError) -> bytes:
        kind = {**_KINDS, **_LATER_KINDS}.get(error.status, "api_error" if error.status >= 500 else _KINDS[400])
        return dumped({"type": "error", "error": {"type": kind, "message": error.message}})


class _MessagesRecorder:
    """Puts the blocks of a message together again."""

    def __init__(self, wire: MessagesWire) -> None:
        self._wire = wire
        self._answer: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._broken = False
        self.ended = False

    @property
    def usage(self) -> Usage | None:
        return self._wire.usage({"usage": self._usage})

    def take(self, event: Event) -> bool:
        told = event.json()
        if not isinstance(told, dict):
            self._broken = self._broken or bool(event.data)
            return True
        try:
            self._note(told)
        except (TypeError, KeyError, AttributeError):
            # Of another shape than is known here: it is passed on, and not kept.
            self._broken = True
        return True

    def payload(self) -> bytes | None:
        if self._broken or not self.ended:
            return None
        try:
            content = [self._whole(index) for index in sorted(self._blocks)]
        except (ValueError, RecursionError):
            return None
        return self._wire.payload({**self._answer, "content": content})

    def _note(self, told: dict[str, Any]) -> None:
        match told.get("type"):
            case "message_start":
                self._answer = dict(told["message"])
                self._usage |= told["message"].get("usage") or {}
            case "content_block_start":
                self._blocks[told["index"]] = dict(told["content_block"])
            case "content_block_delta":
                self._grow(told["index"], told["delta"])
            case "message_delta":
                self._answer |= told["delta"]
                said = told.get("usage") or {}
                self._usage |= {name: count for name, count in said.items() if count is not None}
            case "message_stop":
                self.ended = True
            case "error":
                self._broken = True

    def _grow(self, index: int, delta: dict[str, Any]) -> None:
        block = self._blocks[index]
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
            case "input_json_delta":
                self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case _:
                self._broken = True

    def _whole(self, index: int) -> dict[str, Any]:
        said = self._inputs.get(index)
        return {**self._blocks[index], "input": json.loads(said)} if said else self._blocks[index]


def _charged(body: Mapping[str, Any]) -> str:
    tools = json.dumps(body["tools"]) if body.get("tools") else ""
    return "\n".join((all_text(body.get("system")), all_text(body["messages"]), tools))


def _asked(turns: list[dict[str, Any]]) -> tuple[str, list[Any], bool]:
    """The text of the question, all else that was said, and whether the text may be compared by meaning."""
    turns = [_without_marks(turn) for turn in turns]
    last = turns[-1]
    text = text_of(last.get("content"))
    if last["role"] != "user" or text is None:
        return json.dumps(turns, sort_keys=True), [], False
    question, around = question_in(text)
    others = [*turns[:-1], {name: value for name, value in last.items() if name != "content"}, *around]
    return question, others, not any(isinstance(turn.get("content"), list) for turn in turns)


def _without_marks(value: Any) -> Any:
    """Where the provider may cache a prompt is nothing that the answer depends on."""
    if isinstance(value, dict):
        return {name: _without_marks(inner) for name, inner in value.items() if name != "cache_control"}
    return [_without_marks(inner) for inner in value] if isinstance(value, list) else value


def _past(body: Mapping[str, Any]) -> str | None:
    if body.get("mcp_servers"):
        return "mcp"
    listed = body.get("tools")
    tools = listed if isinstance(listed, list) else []
    kinds = [str(tool.get("type")) for tool in tools if isinstance(tool, dict)]
    return next((kind for kind in _WORLDLY if any(one.startswith(kind) for one in kinds)), None)


def _says(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    return block.get("type") == "tool_use" or bool(str(block.get("text") or "").strip())


def _reissued(content: list[Any]) -> list[dict[str, Any]]:
    return [{**block, "id": new_id("toolu_")} if block.get("type") == "tool_use" else block for block in content]


def _head(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": new_id("msg_"), "type": "message", **data["about"]}


def _deltas(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it begins, and what is added to it."""
    match block.get("type"):
        case "text":
            added = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
            return {**block, "text": ""}, added
        case "tool_use":
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        case "thinking":
            added = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            if block.get("signature"):
                added.append({"type": "signature_delta", "signature": block["signature"]})
            return {**block, "thinking": "", "signature": ""}, added
        case _:
            return dict(block), []
