"""``/v1/chat/completions``: OpenAI's chat format."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dispatch_core.compress.known import question_in
from dispatch_core.messages import Message
from dispatch_core.types import Usage
from dispatch_gateway import openai, prompts
from dispatch_gateway.errors import ApiError, need
from dispatch_gateway.openai import DONE, NO_USAGE
from dispatch_gateway.sse import event
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

_EXACT = ("tools", "functions", "response_format", "modalities", "prediction")
"""With any of these a call is matched exactly."""

_WORLDLY = ("web_search_options", "web_search")
"""With any of these the answer rests on what the world is like right now."""

_FINISHED = frozenset({"stop", "tool_calls", "function_call"})
_GROWING = frozenset({"content", "refusal", "arguments", "reasoning_content", "reasoning", "data", "transcript"})
"""Texts that come in pieces. The others come whole, some again and again."""

_KEPT = ("model", "system_fingerprint", "service_tier")


class ChatWire:
    name = "chat"
    operation = "chat"
    path = "/chat/completions"
    provider: Literal["openai", "anthropic"] = "openai"

    def read(self, body: Mapping[str, Any], raw: bytes) -> Call:
        model = model_of(body)
        messages = body.get("messages")
        need(isinstance(messages, list) and bool(messages), "messages", "an array with at least one message")
        assert isinstance(messages, list)
        stream = flag(body, "stream")
        try:
            text, turns, semantic = _asked(turns_of(messages))
            past = next((name for name in _WORLDLY if body.get(name) is not None), None)
        except Unstable as unstable:
            text, turns, semantic, past = "", [], False, str(unstable)
        return Call(
            body=body,
            raw=raw,
            model=model,
            text=text,
            facts={"wire": self.name, "turns": turns, "options": openai.options(body, "messages")},
            prompt=_charged(body),
            semantic=semantic and not any(map(body.get, _EXACT)),
            past=past,
            max_tokens=most_tokens(body, "max_completion_tokens", "max_tokens"),
            stream=stream,
            wants_usage=openai.wants_usage(body),
        )

    def sent(self, call: Call, model: str, *, stream_usage: bool) -> bytes:
        return openai.sent(call, model, stream_usage=stream_usage)

    def messages(self, call: Call) -> tuple[Message, ...]:
        return prompts.to_core(call.body["messages"])

    def shortened(self, call: Call, messages: Sequence[Message]) -> Call:
        body = {**call.body, "messages": prompts.from_core(messages)}
        return changed(call, body, _charged(body))

    def usage(self, answer: Any) -> Usage | None:
        return openai.usage_of(answer)

    def payload(self, answer: Any) -> bytes | None:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not all(map(_complete, choices)):
            return None
        kept = {name: answer[name] for name in _KEPT if answer.get(name) is not None}
        return stored(self.name, choices=choices, about=kept)

    def recorder(self, call: Call) -> Recorder:
        return _ChatRecorder(self, call)

    def whole(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        choices = [{**choice, "message": _reissued(choice["message"])} for choice in data["choices"]]
        return dumped({**_head(data, "chat.completion"), "choices": choices, "usage": NO_USAGE})

    def streamed(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        head = _head(data, "chat.completion.chunk")
        if call.wants_usage:
            head["usage"] = None
        chunks = [
            {**head, "choices": [{"index": choice.get("index", 0), "logprobs": None, "finish_reason": None, **part}]}
            for choice in data["choices"]
            for part in _parts(choice)
        ]
        if call.wants_usage:
            chunks.append({**head, "choices": [], "usage": NO_USAGE})
        return b"".join(event(dumped(chunk)) for chunk in chunks) + DONE

    def error(self, error: ApiError) -> bytes:
        return openai.error(error)


class _ChatRecorder(openai.ChoiceRecorder):
    kept = _KEPT

    def _add(self, choice: Any) -> None:
        if not isinstance(choice, dict) or not isinstance(choice.get("delta", {}), dict):
            self._broken = True
            return
        index = tokens(choice.get("index"))
        fresh = {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        whole = self._choices.setdefault(index, fresh)
        _merge(whole["message"], choice.get("delta") or {})
        if choice.get("finish_reason"):
            whole["finish_reason"] = choice["finish_reason"]
        if isinstance(choice.get("logprobs"), dict):
            told = whole.setdefault("logprobs", {})
            for name, value in choice["logprobs"].items():
                told[name] = [*(told.get(name) or ()), *value] if isinstance(value, list) else value


def _merge(whole: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            continue
        known = whole.get(name)
        if isinstance(value, str) and name in _GROWING and isinstance(known, str):
            whole[name] = known + value
        elif isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value)
        elif isinstance(value, list) and name == "tool_calls":
            whole[name] = _merged_calls(known or [], value)
        elif isinstance(value, list) and isinstance(known, list):
            whole[name] = known + value
        else:
            whole[name] = dict(value) if isinstance(value, dict) else value


def _merged_calls(known: list[dict[str, Any]], deltas: list[Any]) -> list[dict[str, Any]]:
    """Pieces of tool calls go to the call of their index."""
    calls = dict(enumerate(known))
    for delta in deltas:
        if isinstance(delta, dict):
            index = delta.get("index")
            call = calls.setdefault(index if isinstance(index, int) else len(calls), {})
            _merge(call, {name: value for name, value in delta.items() if name != "index"})
    return [calls[index] for index in sorted(calls)]


def _charged(body: Mapping[str, Any]) -> str:
    declared = (json.dumps(body[name]) for name in ("tools", "functions") if body.get(name))
    return "\n".join([all_text(body["messages"]), *declared])


def _asked(turns: list[dict[str, Any]]) -> tuple[str, list[Any], bool]:
    """The text of the question, all else that was said, and whether the text may be compared by meaning."""
    last = turns[-1]
    text = last.get("content")
    if last["role"] != "user" or not isinstance(text, str):
        return json.dumps(turns, sort_keys=True), [], False
    question, around = question_in(text)
    others = [*turns[:-1], {name: value for name, value in last.items() if name != "content"}, *around]
    return question, others, not any(turn["role"] in ("tool", "function") for turn in turns)


def _complete(choice: Any) -> bool:
    """An answer of the model's own, to its end."""
    if not isinstance(choice, dict) or choice.get("finish_reason") not in _FINISHED:
        return False
    message = choice.get("message")
    if not isinstance(message, dict) or message.get("refusal"):
        return False
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(map(_callable, calls)):
        return False
    says = (text_of(message.get("content")) or "").strip()
    return bool(says or calls or message.get("function_call"))


def _callable(call: Any) -> bool:
    """A call of a tool that somebody could make."""
    asked = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
    return isinstance(asked, dict) and isinstance(asked.get("name"), str)


def _reissued(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose tool calls have new ids, for ids must be unique in a conversation."""
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {**message, "tool_calls": [{**call, "id": new_id("call_")} for call in calls]}


def _head(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": new_id("chatcmpl-"), "object": kind, "created": int(time.time()), **data["about"]}


def _parts(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of one choice: its role, its text in pieces, what else it says at once, and how it ended."""
    message = _reissued(choice["message"])
    text, logprobs = message.pop("content", None), choice.get("logprobs")
    calls = message.pop("tool_calls", None)
    parts: list[dict[str, Any]] = [{"delta": {"role": message.pop("role", "assistant"), "content": ""}}]
    rest = {name: value for name, value in message.items() if value is not None}
    if rest:
        parts.append({"delta": rest})
    if isinstance(text, str) and logprobs:
        parts.append({"delta": {"content": text}, "logprobs": logprobs})
    elif isinstance(text, str):
        parts += [{"delta": {"content": piece}} for piece in pieces(text)]
    elif text is not None:
        parts.append({"delta": {"content": text}})
    if calls:
        parts.append({"delta": {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]}})
    return [*parts, {"delta": {}, "finish_reason": choice["finish_reason"]}]
