"""Answers that no parser can read are not given again.

A parser runs after the cache has its answer. LangChain tells its tracers what each parser is given, and when one
fails; the message that it was given leads back to the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import Generation
from pydantic import ValidationError

from langchain_dispatch.answers import Answer
from langchain_dispatch.exchange import Exchange
from langchain_dispatch.foreign import ForeignExchange

_REMEMBERED = 512


class Parsers:
    """The last answers, by the ids of their messages, and what is being parsed. Single operations on dicts are
    atomic: no lock."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Exchange | ForeignExchange] = OrderedDict()
        self._given: OrderedDict[UUID, BaseMessage] = OrderedDict()

    def answered(self, answer: BaseMessage | Sequence[Generation], exchange: Exchange | ForeignExchange) -> None:
        messages = [answer] if isinstance(answer, BaseMessage) else [getattr(one, "message", None) for one in answer]
        for message in messages:
            id = None if message is None else _id(message)
            if id is not None:
                _keep(self._answers, id, exchange)

    def replayed(self, answer: Answer, exchange: Exchange | ForeignExchange) -> None:
        hit = answer.note.get("hit_id")
        if hit:
            _keep(self._answers, hit, exchange)

    def started(self, run_id: UUID, given: Any) -> None:
        if isinstance(given, BaseMessage):
            _keep(self._given, run_id, given)

    def ended(self, run_id: UUID) -> None:
        self._given.pop(run_id, None)

    def failed(self, run_id: UUID, error: BaseException, given: Any) -> None:
        """``given`` is what a stream of messages came to."""
        message = self._given.pop(run_id, given)
        if isinstance(message, AIMessage) and isinstance(error, OutputParserException | ValidationError):
            exchange = self._answers.pop(_id(message) or "", None)
            if exchange is not None:
                exchange.refuse()


def _id(message: BaseMessage) -> str | None:
    """What tells the answer apart, in a replay too: there only the hit has a name of its own from the start."""
    note = message.response_metadata.get("dispatch") or {}
    return note.get("hit_id") or message.id


def _keep(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known[key] = value
    while len(known) > _REMEMBERED:
        known.popitem(last=False)
