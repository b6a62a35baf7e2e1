"""What LangChain does not tell a rate limiter: which call it is acquiring for, and what it came to cost.

``BaseRateLimiter.acquire`` gets no message. But LangChain announces every call to its callbacks just before, in the
same context: one observer, registered for all models, notes it there; ``acquire`` claims the note, and the callbacks
at the end of the call settle what was reserved.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.tracers.context import register_configure_hook

from dispatch_core.limit import feedback_of
from dispatch_core.ports import Limiter, Reservation
from dispatch_core.types import Cost, Usage
from langchain_dispatch.answers import usage_of

_REMEMBERED = 16
_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample")
_TELLING = ("text", "thinking", "reasoning", "content")
_PICTURED = ("image_url", "source", "data", "base64", "file", "input_audio")
_IMAGE = "x" * 3200  # about 800 tokens, what providers charge for a picture of ordinary size


@dataclass(slots=True)
class Call:
    """One announced call of a chat model."""

    run_id: UUID
    messages: Sequence[BaseMessage]
    params: dict[str, Any]
    batch: int = 1
    claimed: bool = False
    limiter: Limiter | None = None
    reservation: Reservation | None = None
    streamed: list[str] = field(default_factory=list)
    sent: float = 0.0
    first_token: float | None = None
    unwatch: Callable[[], object] = lambda: None

    def cost(self, limiter: Limiter) -> Cost:
        """The expected cost of messages and tools together."""
        parts = [_text(message.content) for message in self.messages]
        parts += [
            json.dumps(call["args"], default=str) for m in self.messages for call in getattr(m, "tool_calls", ())
        ]
        tools = self.params.get("tools")
        if tools:
            parts.append(json.dumps(tools, default=str))
        given = (self.params.get(name) for name in _MAX_TOKENS)
        most = next((limit for limit in given if isinstance(limit, int) and limit > 0), None)
        model = self.params.get("model") or self.params.get("model_name") or ""
        return limiter.estimate("\n".join(parts), max_tokens=most, model=str(model))

    def settle(self, usage: Usage | None, headers: Mapping[str, str] | None = None) -> None:
        if self.reservation is not None:
            self.reservation.settle(usage, headers, first_token=self.first_token)


class Observer(BaseCallbackHandler):
    """Sees every chat model call of the process. Inline, so that it runs in the context of the call."""

    run_inline = True

    def __init__(self) -> None:
        # No lock: the garbage collector may end a call while this thread starts one, and single operations on a dict
        # are atomic.
        self._open: dict[UUID, Call] = {}

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        params = kwargs.get("invocation_params") or {}
        batch = max(1, kwargs.get("batch_size") or 1)
        call = Call(run_id, messages[0] if messages else [], params, batch)
        # Calls that end in another context than they began in stay behind here; a few of them do no harm.
        waiting = [announced for announced in _calls.get() if not announced.claimed]
        _calls.set((*waiting[1 - max(_REMEMBERED, batch) :], call))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """Completion models ignore rate limiters in LangChain itself; nothing to note."""

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._open.get(run_id)
        if call is None:
            return
        if call.first_token is None:
            call.first_token = time.monotonic() - call.sent
        if isinstance(token, str):
            call.streamed.append(token)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._close(run_id)
        if call is not None and call.limiter is not None and call.reservation is not None:
            generations = [generation for batch in response.generations for generation in batch]
            usage = usage_of(generations)
            if usage is None and call.streamed:
                usage = _usage_of_text(call.limiter, call.reservation, "".join(call.streamed))
            call.settle(usage, _headers_of(generations))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._close(run_id)
        if call is None or call.limiter is None:
            return
        feedback = feedback_of(error)
        if feedback is not None:
            call.limiter.observe(feedback, call.reservation)
        call.settle(None)

    def claim(self) -> Call | None:
        """The call that is acquiring now: of those announced together last, the first that nobody reserved for."""
        calls = _calls.get()
        newest = next((at for at in reversed(range(len(calls))) if not calls[at].claimed), None)
        if newest is None:
            return None
        first = max(0, newest + 1 - calls[newest].batch)
        call = next(call for call in calls[first : newest + 1] if not call.claimed)
        call.claimed = True
        return call

    def hold(self, call: Call, limiter: Limiter, reservation: Reservation) -> None:
        """Remember the reservation until the call ends."""
        call.limiter, call.reservation, call.sent = limiter, reservation, time.monotonic()
        self._open[call.run_id] = call

    async def ahold(self, call: Call, limiter: Limiter, reservation: Reservation) -> None:
        """And settle when the current task ends without a word: a cancelled ``ainvoke`` reports neither end nor
        error."""
        self.hold(call, limiter, reservation)
        task = asyncio.current_task()
        if task is not None:
            callback = partial(self._task_ended, call)
            task.add_done_callback(callback)
            # A worker task may make a million calls: it must not collect a million callbacks.
            call.unwatch = partial(task.remove_done_callback, callback)

    def _task_ended(self, call: Call, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            if task.exception() is not None:
                return  # on_llm_error follows, with the headers
            result = task.result()
            # The caller may be cancelled between this task's end and the callback that would settle.
            call.settle(usage_of(result.generations) if isinstance(result, ChatResult) else None)
            return
        self._close(call.run_id)
        call.settle(None)

    def _close(self, run_id: UUID) -> Call | None:
        for announced in _calls.get():
            if announced.run_id == run_id:
                # Not `_calls.set`: the garbage collector may end a call in the middle of a `set`, and a context
                # variable that is set within its own setting is left with a dangling value (CPython 3.11).
                announced.claimed, announced.messages = True, ()
        call = self._open.pop(run_id, None)
        if call is not None:
            call.unwatch()
        return call


_calls: ContextVar[tuple[Call, ...]] = ContextVar("dispatch_calls", default=())
_observer = Observer()
_hook: ContextVar[Observer | None] = ContextVar("dispatch_observer", default=_observer)
_registered = threading.Event()
_registering = threading.Lock()


def observer() -> Observer:
    """The observer of this process, registered with LangChain when first asked for."""
    with _registering:
        if not _registered.is_set():
            register_configure_hook(_hook, inheritable=False)
            _registered.set()
    return _observer


def _headers_of(generations: Sequence[Any]) -> Mapping[str, str] | None:
    """The response's headers, which models keep only when asked to (``include_response_headers=True``)."""
    for generation in generations:
        message = getattr(generation, "message", None)
        headers = getattr(message, "response_metadata", {}).get("headers")
        if isinstance(headers, Mapping):
            return headers
    return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict):
            texts.append(_block_text(block))
    return "\n".join(texts)


def _block_text(block: dict[str, Any]) -> str:
    """The text of a content block, of the same length in tokens as far as we can tell."""
    told = next((block[name] for name in _TELLING if isinstance(block.get(name), str)), None)
    if told is not None:
        return str(told)
    # Base64 data would be counted as text of its length.
    pictured = any(name in block for name in _PICTURED) or "image" in str(block.get("type"))
    return _IMAGE if pictured else json.dumps(block, default=str)


def _usage_of_text(limiter: Limiter, reservation: Reservation, text: str) -> Usage:
    """A stream without usage: the estimated prompt plus the text that came."""
    return Usage(reservation.cost.input_tokens, limiter.estimate(text, max_tokens=0).input_tokens)
