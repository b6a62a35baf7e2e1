"""One call through the dispatcher: begin → the model → finish. Logic once, for whole answers and for streams."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from dispatch_core import Dispatcher, Ticket
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.types import Match, Query, Usage
from llamaindex_dispatch.convert import UNREADABLE, Form, R, replay
from llamaindex_dispatch.events import announce, announce_miss, announce_wait
from llamaindex_dispatch.hearing import alisten, heard, listen
from llamaindex_dispatch.report import ending_of, speaks_of_endings, unfinished, usage_of
from llamaindex_dispatch.retries import Attempts, RetryPolicy
from llamaindex_dispatch.sending import Sending

_log = logging.getLogger("llamaindex_dispatch")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call: what it asks (None: past the cache), what will be sent if the model must be asked, and the longest
    wait for its turn in seconds. ``done`` is called when the model has answered or failed. ``model`` is whose HTTP
    client tells where the quota stands (None: no limiter to tell)."""

    query: Query | None
    sending: Sending
    timeout: float | None = None
    done: Callable[[], None] | None = None
    retries: RetryPolicy | None = None
    model: Any = None


class Recording(Generic[R]):
    """What is known of an answer so far, from one response or from the chunks of a stream.

    ``headers`` are the response's, ``first_token`` is how many seconds after its start a stream began.
    """

    def __init__(self, form: Form[R], *, streamed: bool = False) -> None:
        self._form = form
        self._last: R | None = None
        self._ending: str | None = None
        self._expects_ending = False
        self._since = time.monotonic() if streamed else None
        self.begun = False
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.first_token: float | None = None

    def add(self, response: R) -> R:
        if not self.begun:
            self.begun = True
            self.headers = heard()
            self.first_token = None if self._since is None else time.monotonic() - self._since
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
        try:
            return self._form.encode(self._last)
        except (TypeError, ValueError, RuntimeError) as reason:
            # It was paid for, and is the caller's all the same.
            _log.debug("an answer cannot be stored: %s", type(reason).__name__)
            return None


class Exchange(Generic[R]):
    """One ask and its answer in one form. Failing open is the dispatcher's business; nothing is caught twice."""

    def __init__(self, dispatcher: Dispatcher, form: Form[R], ask: Ask) -> None:
        self._dispatcher = dispatcher
        self._form = form
        self._ask = ask
        self._attempts = Attempts(dispatcher, ask.retries, ask.sending, ask.timeout)

    def answer(self, call: Callable[[], R], acall: Callable[[], Awaitable[R]]) -> Flow[R]:
        """The whole answer. Raises what the model raises, `LimitExceeded` and `RequestTooLarge`."""
        admitted = yield from self._admit()
        while isinstance(admitted, Ticket):
            recording = Recording(self._form)
            try:
                if self._ask.model is not None:
                    yield from step(listen, alisten, self._ask.model)
                response = recording.add((yield from step(call, acall)))
                payload = recording.payload()
            except BaseException as error:
                admitted = yield from self._failed(admitted, error, recording)
            else:
                yield from self._finish(admitted, payload, recording)
                return response
        return admitted

    def stream(self, call: Callable[[], Generator[R, None, None]]) -> Generator[R, None, None]:
        """The answer in chunks. Nothing is looked up or reserved before the first chunk is asked for."""
        admitted = run(self._admit())
        while isinstance(admitted, Ticket):
            recording = Recording(self._form, streamed=True)
            chunks: Generator[R, None, None] | None = None
            try:
                if self._ask.model is not None:
                    listen(self._ask.model)
                chunks = call()
                for chunk in chunks:
                    piece = recording.add(chunk)
                    with admitted.reading():
                        yield piece
                payload = recording.payload()
            except BaseException as error:
                try:
                    admitted = run(self._failed(admitted, error, recording))
                finally:
                    if chunks is not None and hasattr(chunks, "close"):
                        chunks.close()
            else:
                run(self._finish(admitted, payload, recording))
                return
        yield from replay(self._form, admitted)

    async def astream(self, call: Callable[[], Awaitable[AsyncGenerator[R, None]]]) -> AsyncGenerator[R, None]:
        admitted = await arun(self._admit())
        while isinstance(admitted, Ticket):
            recording = Recording(self._form, streamed=True)
            chunks: AsyncGenerator[R, None] | None = None
            try:
                if self._ask.model is not None:
                    await alisten(self._ask.model)
                chunks = await call()
                async for chunk in chunks:
                    piece = recording.add(chunk)
                    with admitted.reading():
                        yield piece
                payload = recording.payload()
            except BaseException as error:
                try:
                    admitted = await arun(self._failed(admitted, error, recording))
                finally:
                    if chunks is not None and hasattr(chunks, "aclose"):
                        await chunks.aclose()
            else:
                await arun(self._finish(admitted, payload, recording))
                return
        for chunk in replay(self._form, admitted):
            yield chunk

    def _admit(self) -> Flow[R | Ticket]:
        """A stored answer, or the right to ask the model."""
        dispatcher, ask = self._dispatcher, self._ask
        if ask.query is None:
            if dispatcher.cache is not None:
                dispatcher.bypassed()
                announce_miss(None)
            return (yield from self._attempts.reserved(Ticket(Query(""), None)))
        price = ask.sending.priced
        found = yield from step(dispatcher.begin, dispatcher.abegin, ask.query, price, timeout=ask.timeout)
        if isinstance(found, Ticket):
            announce_miss(found.miss)
            announce_wait(found.reservation)
            return found
        response = self._read(found)
        if response is None:
            # Another version of this package wrote it, or with other packages at hand.
            yield from step(dispatcher.discard, dispatcher.adiscard, found)
            ticket = dispatcher.unlooked(ask.query)
            announce_miss(ticket.miss)
            return (yield from self._attempts.reserved(ticket))
        announce(found)
        return response

    def _read(self, found: Match) -> R | None:
        try:
            return self._form.decode(found)
        except UNREADABLE:
            return None

    def _finish(self, ticket: Ticket, payload: bytes | None, recording: Recording[R]) -> Flow[None]:
        self._done()
        if ticket.reservation is not None:
            ticket.reservation.settle(recording.usage, recording.headers, first_token=recording.first_token)
        finish, afinish = self._dispatcher.finish, self._dispatcher.afinish
        yield from step(finish, afinish, ticket, payload, recording.usage)

    def _failed(self, ticket: Ticket, error: BaseException, recording: Recording[R]) -> Flow[R | Ticket]:
        """The right to another attempt, or an old answer, which is better than none. Else the error is raised.

        Nothing is stored, and the charge stays, for the provider may have counted the request, unless it was refused.
        """
        try:
            again = yield from self._attempts.again(ticket, error, begun=recording.begun)
        except BaseException:
            self._done()
            raise
        if again is not None:
            return again
        self._done()
        stale = ticket.stale if isinstance(error, Exception) and not recording.begun else None
        response = None if stale is None else self._read(stale)
        if stale is None or response is None:
            raise error
        announce(stale)
        return response

    def _done(self) -> None:
        if self._ask.done is not None:
            self._ask.done()
