"""The open reservations of this process, by the call that they are for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice

from dispatch_core.limit import feedback_of
from dispatch_core.ports import Limiter, Reservation
from dispatch_core.types import Usage
from llamaindex_dispatch.hearing import Heard, heard

_ORPHANED = 600.0
"""Seconds after which a call that never reported its end is settled as estimated: a stream that nobody read."""

_LOOKS = 8


@dataclass(slots=True)
class Held:
    """A reservation whose call is under way: ``since`` in monotonic seconds, ``first_token`` in seconds from then."""

    limiter: Limiter
    reservation: Reservation
    since: float
    heard: Heard = field(default_factory=Heard)
    first_token: float | None = None

    def settle(self, usage: Usage | None) -> None:
        told = self.heard
        if usage is None and told.tokens is not None:
            usage = Usage(told.tokens)
        self.reservation.settle(usage, told.headers, first_token=self.first_token)


class Ledger:
    """Reservations, by the span of their call.

    Thread-safe without a lock, for the garbage collector may end a stream, and settle it, in the middle of any of
    these lines: every step is one atomic operation of the dictionary.
    """

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def hold(self, span: str, limiter: Limiter, reservation: Reservation, told: Heard | None = None) -> None:
        now = time.monotonic()
        self._held[span] = Held(limiter, reservation, now, told or Heard())
        # Insertion order is age: only the oldest need a look, and each call that begins looks at a few.
        for old in list(islice(self._held, _LOOKS)):
            held = self._held.get(old)
            if held is not None and now - held.since >= _ORPHANED:
                self.settle(old, None)

    def begun(self, span: str | None) -> None:
        """A stream has given a chunk: its headers were heard just now, where it is read."""
        held = None if span is None else self._held.get(span)
        if held is not None and held.first_token is None:
            held.first_token = time.monotonic() - held.since
            held.heard.headers = heard()

    def settle(self, span: str | None, usage: Usage | None) -> None:
        held = self._take(span)
        if held is None:
            return
        if held.heard.headers is None:
            held.heard.headers = heard()
        held.settle(usage)

    def fail(self, span: str | None, error: BaseException | None) -> None:
        held = self._take(span)
        if held is None:
            return
        feedback = None if error is None else feedback_of(error)
        if feedback is not None:
            held.limiter.observe(feedback, held.reservation)
        held.settle(None)

    def _take(self, span: str | None) -> Held | None:
        return None if span is None else self._held.pop(span, None)


ledger = Ledger()
