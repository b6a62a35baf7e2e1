"""`OpenAI(rate_limiter=TokenRateLimiter(...))`: the framework's own field, with tokens.

The framework calls ``acquire()`` without tokens, so that limits of its own on tokens do nothing. But it announces
every call by an instrumentation event just before, in the same context, and reports its end by another: one handler,
on the root dispatcher for all models, notes the announcement for ``acquire`` to claim, and settles at the end.
"""

from __future__ import annotations

import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.events.span import SpanDropEvent

from dispatch_core import LimiterStats, TokenLimiter
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.limit import feedback_of, limiter_of
from dispatch_core.ports import Limiter, Reservation
from dispatch_core.types import Cost, Usage
from llamaindex_dispatch.cost import expected
from llamaindex_dispatch.report import usage_of

Announcement: TypeAlias = LLMChatStartEvent | LLMCompletionStartEvent

_ORPHANED = 600.0
"""Seconds after which a call that never reported its end is settled as estimated: a stream that nobody read."""

_LOOKS = 8

_announced: ContextVar[Announcement | None] = ContextVar("dispatch_announced", default=None)


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation whose call is under way; ``since`` is in monotonic seconds."""

    limiter: Limiter
    reservation: Reservation
    since: float


class Ledger:
    """The open reservations of this process, by the span of their call.

    Thread-safe without a lock, for the garbage collector may end a stream, and settle it, in the middle of any of
    these lines: every step is one atomic operation of the dictionary.
    """

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def hold(self, span: str, limiter: Limiter, reservation: Reservation) -> None:
        now = time.monotonic()
        self._held[span] = Held(limiter, reservation, now)
        # Insertion order is age: only the oldest need a look, and each call that begins looks at a few.
        for old in list(islice(self._held, _LOOKS)):
            held = self._held.get(old)
            if held is not None and now - held.since >= _ORPHANED:
                self.settle(old, None)

    def settle(self, span: str | None, usage: Usage | None) -> None:
        held = self._take(span)
        if held is not None:
            held.reservation.settle(usage)

    def fail(self, span: str | None, error: BaseException | None) -> None:
        held = self._take(span)
        if held is None:
            return
        feedback = None if error is None else feedback_of(error)
        if feedback is not None:
            held.limiter.observe(feedback, held.reservation)
        held.reservation.settle(None)

    def _take(self, span: str | None) -> Held | None:
        return None if span is None else self._held.pop(span, None)


class Listener(BaseEventHandler):
    """Sees every event of the process; all but a few kinds pass by."""

    @classmethod
    def class_name(cls) -> str:
        return "DispatchListener"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            _announced.set(event)
        elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            response = event.response
            _ledger.settle(event.span_id, None if response is None else usage_of(response))
        elif isinstance(event, ExceptionEvent):
            _ledger.fail(event.span_id, event.exception)
        elif isinstance(event, SpanDropEvent):
            # It only quotes the error, but it is sent while the error is being handled.
            _ledger.fail(event.span_id, sys.exception())


_ledger = Ledger()
_listener = Listener()
_attaching = threading.Lock()


class TokenRateLimiter(BaseRateLimiter):
    """A rate limiter that knows the tokens of each call: reserved before it is sent, settled by its real usage.

    ``rpm``, ``tpm`` and further settings are those of `dispatch_core.TokenLimiter`; or give one that exists as
    ``limiter``, to share a quota. ``timeout`` is the longest wait in seconds; beyond it a call raises
    `LimitExceeded`. Embedding models count as requests: the framework does not say what they embed. Retries inside a
    provider's SDK are sent without asking: set ``max_retries=0`` there.

    >>> from llama_index.core.llms import MockLLM
    >>> llm = MockLLM(max_tokens=2)
    >>> llm.rate_limiter = TokenRateLimiter(rpm=60, tpm=10_000)
    >>> llm.complete("hi").text
    'text text'
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        limiter: TokenLimiter | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> None:
        self.limiter = limiter_of(limiter, rpm=rpm, tpm=tpm, **settings)
        self.timeout = timeout
        _attach()

    def acquire(self, num_tokens: int = 0) -> None:
        """Wait for a turn. Raises `LimitExceeded` and `RequestTooLarge`."""
        run(self._acquire(num_tokens))

    async def async_acquire(self, num_tokens: int = 0) -> None:
        await arun(self._acquire(num_tokens))

    def stats(self) -> LimiterStats:
        return self.limiter.stats()

    def _acquire(self, num_tokens: int) -> Flow[None]:
        call = _claim()
        cost = Cost(num_tokens) if call is None or num_tokens else _cost(self.limiter, call)
        limiter = self.limiter
        reservation = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=self.timeout)
        if call is None or call.span_id is None:
            # Nothing will report the end of this call.
            reservation.settle(None)
        else:
            _ledger.hold(call.span_id, limiter, reservation)

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenRateLimiter:
        """One quota however often the model that it guards is copied."""
        return self


def _claim() -> Announcement | None:
    """The call announced in this context, if it is the one that is acquiring now: an embedding announces nothing, and
    must not claim what a model without a limiter announced before."""
    call = _announced.get()
    _announced.set(None)
    return call if call is not None and call.span_id == active_span_id.get() else None


def _cost(limiter: Limiter, call: Announcement) -> Cost:
    prompt = call.messages if isinstance(call, LLMChatStartEvent) else call.prompt
    settings = call.model_dict
    limits = {"max_tokens": settings.get("max_tokens") or settings.get("num_output")}
    model = settings.get("model_name") or settings.get("model") or ""
    return expected(limiter, prompt, call.additional_kwargs, limits, model=str(model))


def _attach() -> None:
    root = get_dispatcher()
    with _attaching:
        if _listener not in root.event_handlers:
            root.add_event_handler(_listener)
