"""What LlamaIndex does not tell a rate limiter: which call it works for, and what became of it.

``BaseRateLimiter.acquire`` gets no message, and never hears of the end of a call. But the framework announces every
call to its instrumentation just before, in the same context, and reports its end: one handler of events and one of
spans, on the root dispatcher for all models, note the announcement for ``acquire`` to claim, and settle at the end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.events.span import SpanDropEvent
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from dispatch_core.ports import Limiter
from dispatch_core.types import Cost
from llamaindex_dispatch.cost import expected
from llamaindex_dispatch.hearing import Heard
from llamaindex_dispatch.ledger import ledger
from llamaindex_dispatch.report import usage_of

Announcement: TypeAlias = LLMChatStartEvent | LLMCompletionStartEvent

_announced: ContextVar[Announcement | None] = ContextVar("dispatch_announced", default=None)


@dataclass(slots=True)
class Opened:
    """A limited model at work; an embedding model also with the texts that it sends, in its batches, and the names
    under which the ledger holds them."""

    model: Any
    batches: Iterator[list[str]] = field(default_factory=lambda: iter(()))
    held: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Claim:
    """The call that is acquiring now: its name in the ledger, the model if it is known, and what it sends."""

    name: str
    model: Any
    sends: Announcement | list[str]
    told: Heard | None = None

    def cost(self, limiter: Limiter) -> Cost:
        """The tokens to expect; an embedding has no answer."""
        call = self.sends
        if isinstance(call, list):
            model = str(getattr(self.model, "model_name", ""))
            return limiter.estimate("\n".join(call), max_tokens=0, model=model) if call else Cost(0)
        prompt = call.messages if isinstance(call, LLMChatStartEvent) else call.prompt
        settings = call.model_dict
        limits = {"max_tokens": settings.get("max_tokens") or settings.get("num_output")}
        model = settings.get("model_name") or settings.get("model") or ""
        return expected(limiter, prompt, call.additional_kwargs, limits, model=str(model))


def claim() -> Claim | None:
    """The call announced in this context, if it is the one that is acquiring now: an embedding must not claim what a
    model without a limiter announced before. None for a call that nobody announced."""
    span = active_span_id.get()
    call = _announced.get()
    _announced.set(None)
    opened = None if span is None else _spans.opened(span)
    if span is not None and call is not None and call.span_id == span:
        return Claim(span, None if opened is None else opened.model, call)
    if span is None or opened is None or not isinstance(opened.model, BaseEmbedding):
        return None
    name = f"{span} {len(opened.held)}"
    opened.held.append(name)
    return Claim(name, opened.model, next(opened.batches, []), Heard())


class Listener(BaseEventHandler):
    """Sees every event of the process; all but a few kinds pass by."""

    @classmethod
    def class_name(cls) -> str:
        return "DispatchListener"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, LLMChatInProgressEvent | LLMCompletionInProgressEvent):
            ledger.begun(event.span_id)
        elif isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            _announced.set(event)
        elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            response = event.response
            ledger.settle(event.span_id, None if response is None else usage_of(response))
        elif isinstance(event, EmbeddingEndEvent):
            _spans.embedded(event.span_id)
        elif isinstance(event, ExceptionEvent):
            ledger.fail(event.span_id, event.exception)
        elif isinstance(event, SpanDropEvent):
            # It only quotes the error, but it is sent while the error is being handled.
            ledger.fail(event.span_id, sys.exception())


class Spans(BaseSpanHandler[Any]):
    """Sees every span of the process; only those of limited models are kept, until they end."""

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        self._opened: dict[str, Opened] = {}

    @classmethod
    def class_name(cls) -> str:
        return "DispatchSpans"

    def opened(self, span: str) -> Opened | None:
        return self._opened.get(span)

    def embedded(self, span: str | None) -> None:
        """What was held for an embedding so far is settled."""
        opened = None if span is None else self._opened.get(span)
        for name in () if opened is None else list(opened.held):
            ledger.settle(name, None)

    def span_enter(self, id_: str, bound_args: Any, instance: Any = None, *args: Any, **kwargs: Any) -> None:
        if not isinstance(instance, BaseEmbedding | BaseLLM):
            return
        if isinstance(getattr(instance, "rate_limiter", None), BaseRateLimiter):
            given = bound_args.arguments if isinstance(instance, BaseEmbedding) else {}
            self._opened[id_] = Opened(instance, _batches(instance, given))

    def span_exit(self, id_: str, bound_args: Any, instance: Any = None, *args: Any, **kwargs: Any) -> None:
        self.embedded(id_)
        self._opened.pop(id_, None)

    def span_drop(
        self, id_: str, bound_args: Any, instance: Any = None, err: BaseException | None = None, **kwargs: Any
    ) -> None:
        opened = self._opened.pop(id_, None)
        for name in () if opened is None else opened.held:
            ledger.fail(name, err)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """None of the framework's own are kept."""

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None: ...

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None: ...


def _batches(model: Any, given: Mapping[str, Any]) -> Iterator[list[str]]:
    """The texts of a call in the order in which they are sent, and acquired for."""
    texts = given.get("texts")
    if texts is None:
        return iter([[text] for name in ("query", "text") if isinstance(text := given.get(name), str)])
    size = model.embed_batch_size
    return iter([list(texts[at : at + size]) for at in range(0, len(texts), size)])


_listener = Listener()
_spans = Spans()
_attaching = threading.Lock()


def attach() -> None:
    """Listen from now on."""
    root = get_dispatcher()
    with _attaching:
        if _listener not in root.event_handlers:
            root.add_event_handler(_listener)
        if not any(handler is _spans for handler in root.span_handlers):
            root.add_span_handler(_spans)
