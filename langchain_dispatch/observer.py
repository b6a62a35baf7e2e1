"""What LangChain does not tell a cache or a limiter: which call it works for, and what became of it.

``BaseRateLimiter.acquire`` gets no message, ``BaseCache.lookup`` no schema, and neither hears of a failure. But
LangChain announces every call to its callbacks just before, in the same context: one observer, registered for all
models, notes it there; cache and limiter find the note, and the callbacks at the end of the call settle what was
reserved and free those who wait for its answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, Generation, LLMResult
from langchain_core.tracers.context import register_configure_hook

from dispatch_core.limit import feedback_of
from dispatch_core.ports import Limiter, Reservation
from langchain_dispatch.answers import usage_of
from langchain_dispatch.call import Call
from langchain_dispatch.ignored import warn_of_an_ignored_limiter
from langchain_dispatch.parsers import Parsers
from langchain_dispatch.turns import Message

_REMEMBERED = 16


class Observer(BaseCallbackHandler):
    """Sees every chat model call of the process. Inline, so that it runs in the context of the call."""

    run_inline = True

    def __init__(self) -> None:
        # No lock: the garbage collector may end a call while this thread starts one, and single operations on a dict
        # are atomic.
        self._open: dict[UUID, Call] = {}
        self.parsers = Parsers()

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        params = kwargs.get("invocation_params") or {}
        batch = max(1, kwargs.get("batch_size") or 1)
        format = (kwargs.get("options") or {}).get("ls_structured_output_format")
        call = Call(run_id, messages[0] if messages else [], params, format, batch)
        # Calls that end in another context than they began in stay behind here; a few of them do no harm.
        waiting = [announced for announced in _calls.get() if not announced.ended]
        _calls.set((*waiting[1 - max(_REMEMBERED, batch) :], call))
        warn_of_an_ignored_limiter()

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        """Completion models are looked up before they are announced, and LangChain ignores their rate limiters."""

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any) -> None:
        call = self._open.get(run_id)
        if call is not None:
            call.came(token, chunk)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        self._ended(run_id, [generation for batch in response.generations for generation in batch])

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._close(run_id)
        if call is not None:
            _feed_back(call, error)
            call.settle(None)

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if kwargs.get("run_type") == "parser":
            self.parsers.started(run_id, inputs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.parsers.ended(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self.parsers.failed(run_id, error, kwargs.get("inputs"))

    def failed(self, call: Call, error: BaseException) -> None:
        """An attempt at the call, after which another follows."""
        _feed_back(call, error)
        call.start_over()

    def started(self, run_id: UUID) -> Call | None:
        """The call of this context with that id, which is now under way."""
        call = self.call(run_id)
        if call is not None and call.batch > 1:
            _started.set(call)
        return call

    def current(self) -> Call | None:
        """The call of this context that is under way."""
        newest = _first(lambda call: not call.ended)
        return newest if newest is None or newest.batch == 1 else _started.get()

    def claim(self) -> Call | None:
        """The call that is acquiring now: of those announced together last, the first that nobody reserved for."""
        call = _first(lambda call: not call.claimed)
        if call is not None:
            call.claimed = True
        return call

    def asking(self, messages: Sequence[Message]) -> Call | None:
        """The call whose messages a cache is looking up now; None if nobody announced it."""
        call = _first(lambda call: not call.asked)
        if call is None or not call.asks(messages):
            return None
        call.asked = True
        return call

    def answered(self, key: str) -> Call | None:
        """The call of this context that a cache looked up under this key, and whose answer it is told now."""
        calls = reversed(_calls.get())
        return next((call for call in calls if call.key == key and call.exchange and call.exchange.open), None)

    def call(self, run_id: UUID) -> Call | None:
        """The call of this context with that id."""
        return next((call for call in _calls.get() if call.run_id == run_id), None)

    def hold(self, call: Call) -> None:
        """Remember until its end a call that others may wait for."""
        self._open[call.run_id] = call

    async def ahold(self, call: Call) -> None:
        """And end it when the current task ends without a word: a cancelled ``ainvoke`` reports neither end nor
        error."""
        self.hold(call)
        task = asyncio.current_task()
        if task is not None and call.unwatch is None:
            callback = partial(self._task_ended, call)
            task.add_done_callback(callback)
            # A worker task may make a million calls: it must not collect a million callbacks.
            call.unwatch = partial(task.remove_done_callback, callback)

    def reserved(self, call: Call, limiter: Limiter, reservation: Reservation) -> None:
        """Settle the reservation when the call ends."""
        call.limiter, call.reservation, call.sent = limiter, reservation, time.monotonic()
        self.hold(call)

    async def areserved(self, call: Call, limiter: Limiter, reservation: Reservation) -> None:
        self.reserved(call, limiter, reservation)
        await self.ahold(call)

    def _task_ended(self, call: Call, task: asyncio.Task[Any]) -> None:
        # The caller may be cancelled between this task's end and the callback that would say what came of it.
        if task.cancelled():
            self._close(call.run_id)
            call.settle(None)
            return
        error = task.exception()
        if error is not None:
            self.on_llm_error(error, run_id=call.run_id)
            return
        result = task.result()
        # A stream may go on in another task.
        if isinstance(result, ChatResult):
            self._ended(call.run_id, result.generations)

    def _ended(self, run_id: UUID, generations: Sequence[Generation]) -> None:
        call = self._close(run_id)
        if call is not None and call.reservation is not None:
            call.settle(usage_of(generations) or call.usage_of_text(), _headers_of(generations))

    def _close(self, run_id: UUID) -> Call | None:
        # Not `_calls.set`: the garbage collector may end a call in the middle of a `set`, and a context variable that
        # is set within its own setting is left with a dangling value (CPython 3.11).
        call = self._open.pop(run_id, None) or self.call(run_id)
        if call is None or call.ended:
            return None
        call.end()
        return call


_calls: ContextVar[tuple[Call, ...]] = ContextVar("dispatch_calls", default=())
_started: ContextVar[Call | None] = ContextVar("dispatch_started", default=None)
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


def _first(waiting: Callable[[Call], bool]) -> Call | None:
    """Of the calls announced together last, the first that is waiting."""
    calls = _calls.get()
    newest = next((at for at in reversed(range(len(calls))) if waiting(calls[at])), None)
    if newest is None:
        return None
    first = max(0, newest + 1 - calls[newest].batch)
    return next(call for call in calls[first : newest + 1] if waiting(call))


def _feed_back(call: Call, error: BaseException) -> None:
    """Tell the limiter what the provider's error says of its limits."""
    feedback = None if call.limiter is None else feedback_of(error)
    if call.limiter is not None and feedback is not None:
        call.limiter.observe(feedback, call.reservation)


def _headers_of(generations: Sequence[Any]) -> Mapping[str, str] | None:
    """The response's headers, which models keep only when asked to (``include_response_headers=True``)."""
    for generation in generations:
        message = getattr(generation, "message", None)
        headers = getattr(message, "response_metadata", {}).get("headers")
        if isinstance(headers, Mapping):
            return headers
    return None
