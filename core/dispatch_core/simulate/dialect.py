"""What a protocol is to the server: how a request is read and an answer written. No I/O.

The server counts, limits, paces and breaks; a `Dialect` says it in the words of one API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dispatch_core.simulate.quota import Dimension, Level, Rejection
from dispatch_core.simulate.reply import Reply
from dispatch_core.simulate.request import ApiError, ChatRequest

Levels = Mapping[Dimension, Level]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, its reply, and what identifies them on the wire. ``created`` is in Unix seconds."""

    chat: ChatRequest
    reply: Reply
    identity: str
    created: int


class Dialect(Protocol):
    """One API. Events of a stream are whole server-sent events, as text."""

    identity: str
    """What the identity of every answer begins with."""

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request. Raises `ApiError` (400) in the words of the API."""

    def reserved(self, chat: ChatRequest) -> int:
        """Tokens that count against a limit of all tokens on arrival."""

    def limits(self, levels: Levels, now: float) -> dict[str, str]:
        """The headers that tell where the quota stands; `now` is in Unix seconds."""

    def refusal(self, rejection: Rejection, model: str, levels: Levels, now: float) -> ApiError: ...
    def error(self, error: ApiError) -> dict[str, Any]:
        """The body of an error."""

    def whole(self, exchange: Exchange) -> dict[str, Any]:
        """The body of an answer that is not streamed."""

    def opening(self, exchange: Exchange) -> str: ...
    def piece(self, exchange: Exchange, text: str) -> str: ...
    def ending(self, exchange: Exchange) -> str: ...
    def broken(self, error: ApiError) -> str:
        """The event that tells an error after the stream has begun."""
