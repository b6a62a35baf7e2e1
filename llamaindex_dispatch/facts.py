"""The JSON form of everything that decides an answer: messages, settings of a model, options of a call. Pure.

`TypeError` is raised for what has no stable form: the call then goes past the cache. The ``repr`` of an object is
never used, for it may hold an address or hide a setting.
"""

from __future__ import annotations

import hashlib
import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from io import IOBase
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from llama_index.core.base.llms.types import BaseContentBlock, ChatMessage, TextBlock
from llama_index.core.tools import BaseTool
from pydantic import BaseModel, SecretStr

_TRANSPORT = frozenset(
    {
        *("timeout", "request_timeout", "max_retries", "retries", "reuse_client", "num_workers", "verbose"),
        *("http_client", "async_http_client", "proxies"),
        *("stream", "stream_options", "callback_manager", "rate_limiter"),
    }
)
"""How an answer travels, not what it says. ``stream_options``: one entry serves streams and whole answers."""

_SECRET = (
    *("apikey", "secretkey", "accesskey", "privatekey", "password", "secret", "credential", "credentials"),
    *("apitoken", "accesstoken", "authtoken", "sessiontoken", "bearertoken", "refreshtoken", "securitytoken"),
    *("hftoken", "authorization"),
)
"""How the names of secrets end, without their hyphens and underscores."""

_CREDENTIAL = (
    *("authorization", "auth", "cookie", "token", "secret", "key"),
    *("password", "credential", "credentials", "signature"),
)
"""How the names of the headers end that say who asks. All others may decide the answer: gateways route by them."""

_serials: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()


def plain(value: Any) -> Any:
    """A value that JSON can express. Output classes become their schema, tools their description."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_name(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    return _tagged(value)


def _tagged(value: Any) -> list[Any]:
    """Objects that are wholly described by a value that JSON can express."""
    if isinstance(value, bytes):
        return ["bytes", hashlib.blake2b(value, digest_size=20).hexdigest()]
    if isinstance(value, type) and issubclass(value, BaseModel):
        return ["schema", value.model_json_schema()]
    if isinstance(value, BaseTool):
        return ["tool", plain(value.metadata.to_openai_tool(skip_length_check=True))]
    raise TypeError(f"{type(value).__name__} has no stable form")


def prompt_facts(prompt: str | Sequence[ChatMessage]) -> Any:
    return prompt if isinstance(prompt, str) else [message_facts(message) for message in prompt]


def message_facts(message: ChatMessage) -> list[Any]:
    """Role, blocks and the provider's extras of one message."""
    blocks = [text_facts(block.text) if isinstance(block, TextBlock) else _held(block) for block in message.blocks]
    return [message.role.value, blocks, _held(message.additional_kwargs)]


def text_facts(text: str) -> dict[str, str]:
    return {"text": text}


def option_facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller passed along with a prompt, without secrets and transport."""
    facts = {}
    for name, value in options.items():
        if is_headers(name) and not isinstance(value, bool):
            # No headers, and none but credentials, are the same.
            if found := header_facts(value):
                facts[name] = found
        elif not incidental(name, value):
            facts[name] = plain(bare(value))
    return facts


def header_facts(headers: Any) -> dict[str, Any]:
    """Headers without credentials, under their names in lower case."""
    try:
        pairs = dict(headers or {}).items()
    except ValueError as error:
        raise TypeError("headers that are no pairs") from error
    texts = [(name.decode("latin-1") if isinstance(name, bytes) else _name(name), value) for name, value in pairs]
    return {
        name.lower(): plain(value)
        for name, value in texts
        if not name.lower().endswith(_CREDENTIAL) and not isinstance(value, SecretStr)
    }


def bare(value: Any) -> Any:
    """A value without the secrets inside it. Only texts: in a schema, what is named so describes a secret."""
    if isinstance(value, Mapping):
        return {
            name: header_facts(inner) if is_headers(name) and isinstance(inner, Mapping) else bare(inner)
            for name, inner in value.items()
            if not isinstance(inner, SecretStr) and not (isinstance(inner, str | bytes) and is_secret(name))
        }
    return [bare(item) for item in value] if isinstance(value, list | tuple) else value


def incidental(name: str, value: Any) -> bool:
    """Secrets and transport: nothing that an answer depends on."""
    return name in _TRANSPORT or is_secret(name) or isinstance(value, SecretStr)


def is_secret(name: Any) -> bool:
    return str(name).lower().replace("_", "").replace("-", "").endswith(_SECRET)


def is_headers(name: Any) -> bool:
    return str(name).lower().endswith("headers")


def function_facts(function: Any) -> str | None:
    """A function by its name; one without a name of its own is told apart within this process only."""
    if function is None:
        return None
    if not inspect.isfunction(function):
        raise TypeError("a callable object has no stable form")
    name = f"{function.__module__}.{function.__qualname__}"
    return name if "<" not in name else f"{name} {_serials.setdefault(function, uuid.uuid4().hex)}"


def _held(value: Any) -> Any:
    """What a message holds: blocks, and objects of a provider's SDK in its extras, field by field."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        if isinstance(value, BaseContentBlock):
            fields = _with_content(fields)
        return [type(value).__name__, _held({**fields, **(value.model_extra or {})})]
    if isinstance(value, list | tuple):
        return [_held(item) for item in value]
    if isinstance(value, Mapping):
        return {_name(key): _held(item) for key, item in value.items()}
    return plain(value)


def _with_content(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a block with the bytes that they stand for; what a URL shows may change at any time."""
    if fields.get("url"):
        raise TypeError("a URL is no content")
    try:
        found = {name: _read(value) for name, value in fields.items() if isinstance(value, IOBase)}
        if fields.get("path"):
            found["path"] = Path(fields["path"]).read_bytes()
    except OSError as error:
        raise TypeError("content that cannot be read") from error
    return {**fields, **found}


def _read(source: Any) -> bytes:
    position = source.tell()
    source.seek(0)
    content = source.read()
    source.seek(position)
    return content if isinstance(content, bytes) else str(content).encode()


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError("a name that is not text")
    return key
