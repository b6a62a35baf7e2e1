"""One call through the dispatcher: begin → the model → finish. Logic once, for whole answers and for streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from typing import Generic

from dispatch_core import Dispatcher, Ticket
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.limit import feedback_of
from dispatch_core.types import Cost, Query, Usage
from llamaindex_dispatch.convert import UNREADABLE, Form, R, replay
from llamaindex_dispatch.events import announce
from llamaindex_dispatch.report import ending_of, speaks_of_endings, unfinished, usage_of


@dataclass(frozen=True, slots=True)
class Ask:
    """A call: what it asks (None: past the cache), what it will probably cost (None: no limiter), and the longest
    wait for its turn in seconds. ``done`` is called when the model has answered or failed."""

    query: Query | None
    cost: Cost | None
    timeout: float | None = None
    done: Callable[[], None] | None = None


class Recording(Generic[R]):
    """What is known of an answer so far, from one response or from the chunks of a stream."""

    def __init__(self, form: Form[R]) -> None:
        self._form = form
        self._last: R | None = None
        self._ending: str | None = None
        self._expects_ending = False
        self.usage: Usage | None = None

    def add(self, response: R) -> R:
        # Some providers close with an empty chunk that only carries the usage.
        if self._last is None or self._form.text(response) or not self._form.text(self._last):
            self._last = response
        self._ending = ending_of(response) or self._ending
        self._expects_ending = self._expects_ending or speaks_of_endings(response)
        self.usage = usage_of(response) or self.usage
        return response

    def payload(self) -> bytes | None:
        """The bytes to store; None for an answer that is empty, cut off, withheld or broken off."""
        if self._last is None or unfinished(self._ending) or (self._expects_ending and self._ending is None):
            return None
        return self._form.encode(self._last)


class Exchange(Generic[R]):
    """One ask and its answer in one form. Failing open is the dispatcher's business; nothing is caught twice."""

    def __init__(self, dispatcher: Dispatcher, form: Form[R], ask: Ask) -> None:
        self._dispatcher = dispatcher
        self._form = form
        self._ask = ask

    def answer(self, call: Callable[[], R], acall: Callable[[], Awaitable[R]]) -> Flow[R]:
        """The whole answer. Raises what the model raises, `LimitExceeded` and `RequestTooLarge`."""
        admitted = yield from self._admit()
        if not isinstance(admitted, Ticket):
            return admitted
        recording = Recording(self._form)
        try:
            response = recording.add((yield from step(call, acall)))
            payload = recording.payload()
        except BaseException as error:
            self._fail(admitted, error)
            raise
        yield from self._finish(admitted, payload, recording.usage)
        return response

    def stream(self, call: Callable[[], Generator[R, None, None]]) -> Generator[R, None, None]:
        """The answer in chunks. Nothing is looked up or reserved before the first chunk is asked for."""
        admitted = run(self._admit())
        if not isinstance(admitted, Ticket):
            yield from replay(self._form, admitted)
            return
        recording = Recording(self._form)
        chunks: Generator[R, None, None] | None = None
        try:
            chunks = call()
            for chunk in chunks:
                yield recording.add(chunk)
            payload = recording.payload()
        except BaseException as error:
            self._fail(admitted, error)
            if chunks is not None and hasattr(chunks, "close"):
                chunks.close()
            raise
        run(self._finish(admitted, payload, recording.usage))

    async def astream(self, call: Callable[[], Awaitable[AsyncGenerator[R, None]]]) -> AsyncGenerator[R, None]:
        admitted = await arun(self._admit())
        if not isinstance(admitted, Ticket):
            for chunk in replay(self._form, admitted):
                yield chunk
            return
        recording = Recording(self._form)
        chunks: AsyncGenerator[R, None] | None = None
        try:
            chunks = await call()
            async for chunk in chunks:
                yield recording.add(chunk)
            payload = recording.payload()
        except BaseException as error:
            self._fail(admitted, error)
            if chunks is not None and hasattr(chunks, "aclose"):
                await chunks.aclose()
            raise
        await arun(self._finish(admitted, payload, recording.usage))

    def _admit(self) -> Flow[R | Ticket]:
        """A stored answer, or the right to ask the model."""
        dispatcher, ask = self._dispatcher, self._ask
        if ask.query is None:
            if dispatcher.cache is not None:
                dispatcher.bypassed()
            return (yield from self._reserve(Ticket(Query(""), None)))
        found = yield from step(dispatcher.begin, dispatcher.abegin, ask.query, ask.cost, timeout=ask.timeout)
        if isinstance(found, Ticket):
            return found
        try:
            response = self._form.decode(found)
        except UNREADABLE:
            # Another version of this package wrote it, or with other packages at hand.
            yield from step(dispatcher.discard, dispatcher.adiscard, found)
            return (yield from self._reserve(dispatcher.unlooked(ask.query)))
        announce(found)
        return response

    def _reserve(self, ticket: Ticket) -> Flow[Ticket]:
        limiter, cost = self._dispatcher.limiter, self._ask.cost
        if limiter is None or cost is None:
            return ticket
        reservation = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=self._ask.timeout)
        return replace(ticket, reservation=reservation)

    def _finish(self, ticket: Ticket, payload: bytes | None, usage: Usage | None) -> Flow[None]:
        if self._ask.done is not None:
            self._ask.done()
        yield from step(self._dispatcher.finish, self._dispatcher.afinish, ticket, payload, usage)

    def _fail(self, ticket: Ticket, error: BaseException) -> None:
        """Store nothing; the charge stays, for the provider may have counted the request, unless it was refused."""
        feedback = feedback_of(error)
        if feedback is not None and self._dispatcher.limiter is not None:
            self._dispatcher.limiter.observe(feedback, ticket.reservation)
        self._dispatcher.abort(ticket)
        if self._ask.done is not None:
            self._ask.done()
