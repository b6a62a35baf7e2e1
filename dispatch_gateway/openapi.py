"""The gateway's description of itself: OpenAPI 3.1, of every route that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from dispatch_gateway.schemas import SCHEMAS, TEXT, Schema, named

_JSON, _EVENTS = "application/json", "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be done at one route. ``takes`` and ``gives`` are names of schemas, or ``gives`` is a type of content;
    ``fails`` are the statuses of the gateway's own errors. ``guarded`` asks for a key, where there are any."""

    method: str
    path: str
    does: str
    gives: str
    takes: str = ""
    parameters: tuple[Schema, ...] = ()
    fails: tuple[int, ...] = ()
    guarded: bool = False
    streams: bool = False


def _parameter(where: str, name: str, about: str, schema: Schema = TEXT, *, needed: bool = False) -> Schema:
    return {"name": name, "in": where, "required": needed, "schema": schema, "description": about}


_WISHES = (
    _parameter("header", "cache-control", "no-cache, no-store, only-if-cached, max-age=SECONDS"),
    _parameter("header", "x-dispatch-namespace", "A namespace within the caller's own.", {**TEXT, "maxLength": 200}),
    _parameter("header", "x-dispatch-threshold", "A higher threshold; lower ones are not heeded."),
    _parameter("header", "x-dispatch-compression", "off: the prompt is sent whole.", {"enum": ["on", "off"]}),
    _parameter("header", "x-dispatch-tags", "Names with commas between, to forget the answer by."),
)
_BETA = _parameter("header", "openai-beta", "Goes along to the upstream.")
_ANTHROPIC = tuple(
    _parameter("header", name, "Goes along to the upstream.") for name in ("anthropic-beta", "anthropic-version")
)
_OF_CALLS = (400, 401, 403, 404, 413, 415, 429, 500, 502, 503, 504)
_OF_MODELS = (401, 403, 502)


def _call(path: str, does: str, takes: str, gives: str, *also: Schema, streams: bool = True) -> Operation:
    parameters = (*_WISHES, *also)
    return Operation("post", path, does, gives, takes, parameters, _OF_CALLS, guarded=True, streams=streams)


OPERATIONS: tuple[Operation, ...] = (
    _call("/v1/chat/completions", "Answer a conversation.", "ChatRequest", "ChatAnswer", _BETA),
    _call("/v1/completions", "Go on with a text.", "CompletionRequest", "CompletionAnswer", _BETA),
    _call("/v1/embeddings", "Embed texts.", "EmbeddingRequest", "EmbeddingAnswer", _BETA, streams=False),
    _call(
        "/v1/messages",
        "Answer a conversation, in Anthropic's format.",
        "MessagesRequest",
        "MessagesAnswer",
        *_ANTHROPIC,
    ),
    Operation("get", "/v1/models", "List the models.", "Models", fails=_OF_MODELS, guarded=True),
    Operation(
        "get",
        "/v1/models/{name}",
        "Describe a model.",
        "Model",
        parameters=(_parameter("path", "name", "Its name, which may have slashes.", needed=True),),
        fails=(*_OF_MODELS, 404),
        guarded=True,
    ),
    Operation(
        "delete",
        "/v1/cache",
        "Forget entries of the caller's own: one, those with a tag, a namespace, or all.",
        "Forgotten",
        parameters=tuple(
            _parameter("query", name, "At most one of id, tag and namespace.") for name in ("id", "tag", "namespace")
        ),
        fails=(400, 401, 403, 503),
        guarded=True,
    ),
    Operation("get", "/health/live", "Say that the process lives.", "Health"),
    Operation("get", "/health/ready", "Say whether new calls are taken: 503 while draining.", "Health"),
    Operation("get", "/metrics", "Tell Prometheus.", "text/plain"),
    Operation("get", "/status", "Show counters and limits.", "Status"),
    Operation("get", "/openapi.json", "Describe the gateway.", _JSON),
    Operation("get", "/", "Show counters and limits in a browser.", "text/html"),
)

_HEADERS: Mapping[str, Schema] = {
    "cache-control": {"schema": TEXT, "required": True, "description": "private, no-store"},
    "cache-status": {"schema": TEXT, "required": True, "description": "Where the answer came from (RFC 9211)."},
    "age": {"schema": TEXT, "description": "Of a hit, in seconds."},
    "x-dispatch-similarity": {"schema": TEXT, "description": "Of a hit: the cosine of the two questions."},
    "x-dispatch-cache-id": {"schema": TEXT, "description": "Of a stored answer."},
    "x-dispatch-compressed": {"schema": TEXT, "description": "Of a shortened prompt: its tokens before and after."},
    "x-dispatch-tokens-saved": {"schema": TEXT, "description": "Of a hit: what the upstream's answer had cost."},
}
_COME_BACK: Mapping[str, Schema] = {
    "retry-after": {"schema": TEXT, "required": True, "description": "Seconds."},
    "retry-after-ms": {"schema": TEXT, "description": "Milliseconds."},
    **{
        f"x-ratelimit-{what}-{unit}": {"schema": TEXT, "description": "Of the limit with the least left."}
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    },
}
_MEANS: Mapping[int, str] = {
    400: "The request cannot be understood.",
    401: "There is no key, or a wrong one.",
    403: "A web page, or another machine, asks what answers to local programs only.",
    404: "There is no such model, or not for this key.",
    413: "The body is too large, or the call could never fit its limits.",
    415: "The body is not JSON.",
    429: "A limit was reached, or a budget spent.",
    500: "The gateway had an error.",
    502: "The upstream cannot be reached, or broke off.",
    503: "The gateway is shutting down, or the cache cannot be reached.",
    504: "The upstream took too long, or no stored answer would do (only-if-cached).",
}


def document(*, guarded: bool) -> dict[str, Any]:
    """The whole description. ``guarded``: callers need keys."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, guarded=guarded)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AI Dispatcher",
            "version": version("ai-dispatcher"),
            "description": "A semantic cache and token-aware limits in front of language models.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A virtual key."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A virtual key."},
            },
        },
    }


def _described(operation: Operation, *, guarded: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": "_".join([operation.method, *filter(str.isalnum, _words(operation.path))]),
        "summary": operation.does,
        "security": [],
        "responses": {"200": _given(operation), **_failures(operation)},
    }
    if operation.guarded:
        told["security"] = [{"bearer": []}, {"x-api-key": []}, *([] if guarded else [{}])]
    if operation.parameters:
        told["parameters"] = [dict(one) for one in operation.parameters]
    if operation.takes:
        told["requestBody"] = {"required": True, "content": {_JSON: {"schema": named(operation.takes)}}}
    return told


def _words(path: str) -> list[str]:
    return path.replace("{", "").replace("}", "").replace(".", "/").split("/")


def _given(operation: Operation) -> dict[str, Any]:
    if "/" in operation.gives:
        told: dict[str, Any] = {operation.gives: {"schema": {} if operation.gives == _JSON else TEXT}}
    else:
        told = {_JSON: {"schema": named(operation.gives)}}
    if operation.streams:
        told[_EVENTS] = {"schema": {"description": "With stream: true, events of the format's own."}}
    return {
        "description": "As asked.",
        "content": told,
        **({"headers": dict(_HEADERS)} if operation.takes else {}),
    }


def _failures(operation: Operation) -> dict[str, Any]:
    if operation.path == "/health/ready":
        return {"503": {"description": "Draining.", "content": {_JSON: {"schema": named("Health")}}}}
    form = "AnthropicError" if operation.path == "/v1/messages" else "OpenAIError"
    content = {_JSON: {"schema": named(form)}}
    told: dict[str, Any] = {
        str(status): {
            "description": _MEANS[status],
            "content": content,
            **({"headers": dict(_COME_BACK)} if status == 429 else {}),
        }
        for status in operation.fails
    }
    if operation.takes:
        told["default"] = {"description": "The upstream's own error, with its status.", "content": content}
    return told
