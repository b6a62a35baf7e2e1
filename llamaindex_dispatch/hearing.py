"""What a provider's response tells beside its answer and no integration passes on: where the quota stands.

The SDKs speak through a client of httpx, which calls hooks with every response, in the context of the call.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})\b')
_END = 400
"""Bytes at the end of an answer of an embedding model, behind all its numbers: there the usage is."""

_log = logging.getLogger("llamaindex_dispatch")


@dataclass(slots=True)
class Heard:
    """The headers of a response; of an embedding model's also the tokens that it counted."""

    headers: Mapping[str, str] | None = None
    tokens: int | None = None


_into: ContextVar[Heard | None] = ContextVar("dispatch_hearing", default=None)
_last: ContextVar[Mapping[str, str] | None] = ContextVar("dispatch_heard", default=None)


def listen(model: Any, into: Heard | None = None) -> None:
    """Have the HTTP client of a model note what its next response in this context tells: ``into`` a place of its own,
    for one whose answer is read where nobody else sees it, or for `heard`. A client that is made anew for every call
    is not heard."""
    _expect(into)
    _attach(_http_client(model, "_client", "_get_client"), _note)


async def alisten(model: Any, into: Heard | None = None) -> None:
    _expect(into)
    _attach(_http_client(model, "_aclient", "_get_aclient"), _anote)


def heard() -> Mapping[str, str] | None:
    """The headers of the response that came last in this context, once."""
    headers = _last.get()
    if headers is not None:
        _last.set(None)
    return headers


def _expect(into: Heard | None) -> None:
    _into.set(into)
    _last.set(None)


def _http_client(model: Any, held: str, make: str) -> Any:
    sdk, maker = getattr(model, held, None), getattr(model, make, None)
    if sdk is None and callable(maker) and getattr(model, "reuse_client", False):
        try:
            sdk = maker()
        except Exception as reason:
            _log.debug("the client of %s is not to be had: %s", type(model).__name__, type(reason).__name__)
    return getattr(sdk, "_client", None)


def _attach(client: Any, note: Any) -> None:
    hooks = getattr(client, "event_hooks", None)
    noting = hooks.get("response") if isinstance(hooks, dict) else None
    if isinstance(noting, list) and note not in noting:
        noting.append(note)


def _once() -> Heard | None:
    """Whoever waits for the body of this response. The next may be a stream, which nobody may read whole."""
    into = _into.get()
    if into is not None:
        _into.set(None)
    return into


def _note(response: Any) -> None:
    into = _once()
    if into is None:
        _last.set(response.headers)
    else:
        _fill(into, response.headers, response.read())


async def _anote(response: Any) -> None:
    into = _once()
    if into is None:
        _last.set(response.headers)
    else:
        _fill(into, response.headers, await response.aread())


def _fill(into: Heard, headers: Mapping[str, str], body: bytes) -> None:
    said = _PROMPT_TOKENS.search(body, max(0, len(body) - _END))
    into.headers = headers
    into.tokens = None if said is None else int(said[1])
