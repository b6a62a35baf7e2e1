"""JSON Schemas of what the gateway takes and gives, for its description of itself.

Of a request they say what the gateway reads and what every upstream asks for, of an answer what its own have: what
else an upstream takes or sends goes through as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": ["boolean", "null"]}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def listed(item: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": item, **bounds}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


def _either(*kinds: str) -> Schema:
    return {"type": list(kinds)}


_COUNT: Schema = {"type": ["integer", "null"], "minimum": 1}
_SECONDS: Schema = {"type": ["number", "null"], "minimum": 0}
_MAP: Schema = {"type": "object"}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
_TEXT_OR_NONE = _either("string", "null")
_CONTENT = _either("string", "array", "null")
_MODEL: Schema = {"type": "string", "minLength": 1, "maxLength": 256, "description": "The name of a model."}
_CACHE: Schema = {
    "type": ["object", "null"],
    "description": "The stricter of this and the Cache-Control header holds.",
    "properties": {
        **dict.fromkeys(("no-cache", "no-store", "only-if-cached"), FLAG),
        **dict.fromkeys(("ttl", "max-age", "s-maxage"), _SECONDS),
        "namespace": {"type": ["string", "null"], "maxLength": 200},
        "threshold": {"type": ["number", "null"], "minimum": -1, "maximum": 1},
        "tags": {"type": ["array", "null"], "items": _NAME, "maxItems": 16},
    },
}
_ASKING: dict[str, Schema] = {"model": _MODEL, "stream": FLAG, "cache": named("CacheWishes")}
_STREAM_OPTIONS: Schema = {"type": ["object", "null"], "properties": {"include_usage": FLAG}}
_SAMPLING: dict[str, Schema] = {
    "stream_options": _STREAM_OPTIONS,
    "max_tokens": _COUNT,
    "temperature": _either("number", "null"),
    "n": {**_COUNT, "maximum": 128},
}
_TEXTS: Schema = {
    "description": "A text, texts, tokens, or arrays of tokens.",
    "oneOf": [{"type": "string", "minLength": 1}, listed({}, minItems=1)],
}
_USAGE = _object("prompt_tokens", "total_tokens", prompt_tokens=WHOLE, completion_tokens=WHOLE, total_tokens=WHOLE)
_ROLE: Schema = {"enum": ["system", "developer", "user", "assistant", "tool", "function"]}
_CHAT_MESSAGE = _object("role", role=_ROLE, content=_CONTENT, tool_calls=_either("array", "null"))


def _tools(item: Schema) -> Schema:
    return {"type": ["array", "null"], "items": item}


def _answer(kind: str, choice: Schema) -> Schema:
    return _object(
        *("id", "object", "created", "model", "choices"),
        id=TEXT,
        object={"const": kind},
        created=WHOLE,
        model=_TEXT_OR_NONE,
        choices=listed(choice),
        usage=named("Usage"),
    )


SCHEMAS: Mapping[str, Schema] = {
    "CacheWishes": _CACHE,
    "Usage": {**_USAGE, "description": "What the call cost: nothing, if it was a hit."},
    "ChatMessage": _CHAT_MESSAGE,
    "ChatRequest": _object(
        *("model", "messages"),
        messages=listed(named("ChatMessage"), minItems=1),
        max_completion_tokens=_COUNT,
        tools=_tools(_object("type", "function", type=TEXT, function=_object("name", name=_NAME, parameters=_MAP))),
        tool_choice=_either("string", "object", "null"),
        response_format=_either("object", "null"),
        **_ASKING,
        **_SAMPLING,
    ),
    "ChatAnswer": _answer(
        "chat.completion",
        _object("index", "message", index=WHOLE, message=named("ChatMessage"), finish_reason=_TEXT_OR_NONE),
    ),
    "CompletionRequest": _object("model", "prompt", prompt=_TEXTS, **_ASKING, **_SAMPLING),
    "CompletionAnswer": _answer(
        "text_completion", _object("index", "text", index=WHOLE, text=TEXT, finish_reason=_TEXT_OR_NONE)
    ),
    "EmbeddingRequest": _object(
        *("model", "input"),
        model=_MODEL,
        input=_TEXTS,
        encoding_format={"enum": ["float", "base64"]},
        dimensions={"type": "integer", "minimum": 1},
        cache=named("CacheWishes"),
    ),
    "EmbeddingAnswer": _object(
        *("object", "data", "usage"),
        object={"const": "list"},
        model=_TEXT_OR_NONE,
        data=listed(_object("embedding", index=WHOLE, embedding={"oneOf": [listed(NUMBER), TEXT]})),
        usage=named("Usage"),
    ),
    "MessagesRequest": _object(
        *("model", "messages", "max_tokens"),
        messages=listed(
            _object("role", "content", role={"enum": ["user", "assistant"]}, content=_either("string", "array")),
            minItems=1,
        ),
        max_tokens={"type": "integer", "minimum": 1},
        system=_either("string", "array"),
        tools=_tools(_object("name", "input_schema", name=_NAME, input_schema=_MAP)),
        tool_choice=_either("object", "null"),
        **_ASKING,
    ),
    "MessagesAnswer": _object(
        *("id", "type", "role", "content", "usage"),
        id=TEXT,
        type={"const": "message"},
        role={"const": "assistant"},
        model=_TEXT_OR_NONE,
        content=listed(_object("type", type=TEXT)),
        stop_reason=_TEXT_OR_NONE,
        usage=_object("input_tokens", "output_tokens", input_tokens=WHOLE, output_tokens=WHOLE),
    ),
    "Model": _object("id", "object", id=TEXT, object=TEXT, created=_either("integer", "null"), owned_by=TEXT),
    "Models": _object("object", "data", object={"const": "list"}, data=listed(named("Model"))),
    "Forgotten": _object("deleted", deleted={**WHOLE, "description": "How many entries were deleted."}),
    "Health": _object("status", status={"enum": ["ok", "degraded", "draining"]}),
    "Status": _object(
        *("now", "started", "state", "cache", "outcomes", "tokens", "limits"),
        now=NUMBER,
        started=NUMBER,
        state={"enum": ["ok", "draining"]},
        cache={"enum": ["ok", "paused", "off"]},
        compression={"enum": ["ok", "paused", "off"]},
        semantic={"type": "boolean"},
        entries={"type": ["integer", "null"]},
        outcomes={"type": "object", "additionalProperties": WHOLE},
        tokens={"type": "object", "additionalProperties": WHOLE},
        refusals=WHOLE,
        under_way=WHOLE,
        waiting=WHOLE,
        limits=listed({"type": "object"}),
    ),
    "OpenAIError": _object(
        "error",
        error=_object(
            "message",
            message=TEXT,
            type=_TEXT_OR_NONE,
            param=_TEXT_OR_NONE,
            code=_either("string", "integer", "null"),
        ),
    ),
    "AnthropicError": _object(
        *("type", "error"), type={"const": "error"}, error=_object("type", "message", type=TEXT, message=TEXT)
    ),
}
