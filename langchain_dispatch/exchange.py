"""One question through a cache: begin → the model, by somebody else → finish or abandon."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import Generation

from dispatch_core import Dispatcher, Ticket
from dispatch_core._flow import Flow, step
from dispatch_core.types import Query
from langchain_dispatch.answers import Answer, encode, replayed, usage_of
from langchain_dispatch.shape import NO_SHAPE, Shape

_MANY = 2048


class Exchange:
    """A call's question, None if it has no stable identity, and the ticket from the lookup to the end of the call.

    ``alone``: nobody will say how the call ended, so nobody may wait for its answer. ``refused`` are the ids of the
    entries that no parser could read, for all questions through a cache.
    """

    __slots__ = ("_alone", "_dispatcher", "_entry", "_query", "_refused", "_replaces", "_shape", "_ticket", "found")

    def __init__(
        self,
        dispatcher: Dispatcher,
        query: Query | None,
        shape: Shape = NO_SHAPE,
        *,
        refused: set[str],
        alone: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._refused = refused
        self._entry: str | None = None
        self._replaces = False
        self._query = query
        self._shape = shape
        self._alone = alone
        self._ticket: Ticket | None = None
        self.found: Answer | None = None

    @property
    def open(self) -> bool:
        return self._ticket is not None or self._replaces

    def begin(self, *, whole: bool = True) -> Flow[Answer | None]:
        """The answer of the cache, ``whole`` or yet to be made; None if the model must be asked."""
        dispatcher, query = self._dispatcher, self._query
        if query is None:
            dispatcher.bypassed()
            return None
        got = yield from step(dispatcher.begin, dispatcher.abegin, query, alone=self._alone)
        if isinstance(got, Ticket):
            self._ticket = got
            return None
        self._entry = got.entry.id
        refused = self._entry in self._refused
        self.found = None if refused else replayed(got, self._shape, whole=whole)
        if self.found is None:
            # Another version of this package wrote it, or no parser can make anything of it.
            self._replaces = True
            yield from step(dispatcher.discard, dispatcher.adiscard, got)
        return self.found

    def reading(self) -> AbstractContextManager[None]:
        """Around what the reader of a stream does with a piece of it."""
        return nullcontext() if self._ticket is None else self._ticket.reading()

    def finish(self, generations: Sequence[Generation], chunks: Sequence[AIMessageChunk] = ()) -> Flow[None]:
        """Store the model's answer, in the ``chunks`` in which it was streamed, and give it to those who wait."""
        dispatcher, query, ticket = self._dispatcher, self._query, self._taken()
        if ticket is None:
            if query is None:
                return
            ticket = dispatcher.unlooked(query)
        if ticket.miss is not None:
            self._refused.discard(ticket.miss.id)
        fits = all(self._shape.fits(getattr(generation, "message", None)) for generation in generations)
        try:
            payload = encode(generations, chunks) if fits else None
        except BaseException:
            dispatcher.abort(ticket)
            raise
        yield from step(dispatcher.finish, dispatcher.afinish, ticket, payload, usage_of(generations))

    def refuse(self) -> None:
        """A parser cannot read the answer: who asks next asks the model."""
        cache, query = self._dispatcher.cache, self._query
        if cache is None or query is None:
            return
        if len(self._refused) > _MANY:
            self._refused.clear()
        self._refused.add(self._entry or cache.unseen(query).id)

    def reject(self) -> Flow[None]:
        """The model's answer must not be replayed: who waits asks for himself."""
        ticket = self._taken()
        if ticket is not None:
            yield from step(self._dispatcher.finish, self._dispatcher.afinish, ticket, None, None)

    def abandon(self) -> None:
        """The call failed or was given up: the next who waits asks the model. Nothing happens if it has ended."""
        ticket = self._taken()
        if ticket is not None:
            self._dispatcher.abort(ticket)

    def stale(self) -> Answer | None:
        """An old answer to the question, which others are served meanwhile: better than an error."""
        ticket = self._ticket
        return None if ticket is None or ticket.stale is None else replayed(ticket.stale, self._shape)

    def _taken(self) -> Ticket | None:
        ticket, self._ticket, self._replaces = self._ticket, None, False
        return ticket
