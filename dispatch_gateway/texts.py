"""``/v1/completions`` and ``/v1/embeddings``: OpenAI's formats of plain texts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dispatch_core import keys
from dispatch_core.messages import Message
from dispatch_core.types import Usage
from dispatch_gateway import openai
from dispatch_gateway.errors import ApiError, need
from dispatch_gateway.openai import DONE, NO_USAGE
from dispatch_gateway.sse import event
from dispatch_gateway.turns import all_text
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

_BYTES_PER_TOKEN = 4


class CompletionWire:
    name = "completion"
    operation = "text_completion"
    path = "/completions"
    provider: Literal["openai", "anthropic"] = "openai"

    def read(self, body: Mapping[str, Any], raw: bytes) -> Call:
        prompt = body.get("prompt")
        need(isinstance(prompt, str | list) and bool(prompt), "prompt", "a text or an array")
        plain = isinstance(prompt, str)
        return Call(
            body=body,
            raw=raw,
            model=model_of(body),
            text=str(prompt) if plain else json.dumps(prompt),
            facts={"wire": self.name, "plain": plain, "options": openai.options(body, "prompt")},
            prompt=_charged(prompt),
            semantic=plain,
            max_tokens=most_tokens(body, "max_tokens"),
            stream=flag(body, "stream"),
            wants_usage=openai.wants_usage(body),
        )

    def sent(self, call: Call, model: str, *, stream_usage: bool) -> bytes:
        return openai.sent(call, model, stream_usage=stream_usage)

    def messages(self, call: Call) -> tuple[Message, ...]:
        prompt = call.body["prompt"]
        # With its echo the prompt is a part of the answer.
        return (Message.of("user", prompt),) if isinstance(prompt, str) and not call.body.get("echo") else ()

    def shortened(self, call: Call, messages: Sequence[Message]) -> Call:
        prompt = messages[0].text
        return changed(call, {**call.body, "prompt": prompt}, prompt)

    def usage(self, answer: Any) -> Usage | None:
        return openai.usage_of(answer)

    def payload(self, answer: Any) -> bytes | None:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not all(map(_complete, choices)):
            return None
        return stored(self.name, choices=choices, about={"model": answer.get("model")})

    def recorder(self, call: Call) -> Recorder:
        return _CompletionRecorder(self, call)

    def whole(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        return dumped({**_head(data), "choices": data["choices"], "usage": NO_USAGE})

    def streamed(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        head = {**_head(data), **({"usage": None} if call.wants_usage else {})}
        chunks = []
        for choice in data["choices"]:
            parts = pieces(choice["text"]) if not choice.get("logprobs") else [choice["text"]]
            rest = {**choice, "finish_reason": None}
            chunks += [{**head, "choices": [{**rest, "text": part}]} for part in parts]
            chunks.append({**head, "choices": [{**choice, "text": "", "logprobs": None}]})
        if call.wants_usage:
            chunks.append({**head, "choices": [], "usage": NO_USAGE})
        return b"".join(event(dumped(chunk)) for chunk in chunks) + DONE

    def error(self, error: ApiError) -> bytes:
        return openai.error(error)


class _CompletionRecorder(openai.ChoiceRecorder):
    def _add(self, choice: Any) -> None:
        if not isinstance(choice, dict) or not isinstance(choice.get("text"), str) or choice.get("logprobs"):
            # The pieces of log probabilities have offsets that nobody here puts together.
            self._broken = True
            return
        index = tokens(choice.get("index"))
        fresh = {"index": index, "text": "", "logprobs": None, "finish_reason": None}
        whole = self._choices.setdefault(index, fresh)
        whole["text"] += choice["text"]
        whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]


class EmbeddingWire:
    """Vectors are matched exactly. There is no stream of them."""

    name = "embedding"
    operation = "embeddings"
    path = "/embeddings"
    provider: Literal["openai", "anthropic"] = "openai"

    def read(self, body: Mapping[str, Any], raw: bytes) -> Call:
        given = body.get("input")
        need(isinstance(given, str | list) and bool(given), "input", "a text or an array")
        return Call(
            body=body,
            raw=raw,
            model=model_of(body),
            # What is found by its words alone need not be kept in full.
            text=keys.scope_digest(given),
            facts={"wire": self.name, "options": openai.options(body, "input")},
            prompt=_charged(given),
            max_tokens=0,
        )

    def sent(self, call: Call, model: str, *, stream_usage: bool) -> bytes:
        return openai.sent(call, model, stream_usage=False)

    def messages(self, call: Call) -> tuple[Message, ...]:
        return ()

    def shortened(self, call: Call, messages: Sequence[Message]) -> Call:
        return call

    def usage(self, answer: Any) -> Usage | None:
        return openai.usage_of(answer)

    def payload(self, answer: Any) -> bytes | None:
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or not data:
            return None
        return stored(self.name, data=data, about={"model": answer.get("model")})

    def recorder(self, call: Call) -> Recorder:
        raise ApiError(502, "The upstream answered with a stream that nobody asked for.", kind="api_error")

    def whole(self, call: Call, payload: bytes) -> bytes:
        data = loaded(payload, self.name)
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return dumped({"object": "list", "data": data["data"], **data["about"], "usage": usage})

    def streamed(self, call: Call, payload: bytes) -> bytes:
        return self.whole(call, payload)

    def error(self, error: ApiError) -> bytes:
        return openai.error(error)


def _charged(given: Any) -> str:
    """Texts as they are; for tokens, as much text as they stand for."""
    if not isinstance(given, list):
        return all_text(given)
    numbers = sum(len(item) if isinstance(item, list) else isinstance(item, int) for item in given)
    return all_text(given) + "x" * (numbers * _BYTES_PER_TOKEN)


def _complete(choice: Any) -> bool:
    text = choice.get("text") if isinstance(choice, dict) else None
    return isinstance(text, str) and bool(text.strip()) and choice.get("finish_reason") == "stop"


def _head(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time.time()), **data["about"]}
