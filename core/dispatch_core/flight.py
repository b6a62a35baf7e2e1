"""Single flight: of all who ask the same question at one moment, one asks the model and the others get its answer.

A *flight* is a question being answered. Who comes first leads it, the others follow. It ends with a `Match`, to
serve to all; or with a `Miss`, when the answer is not worth keeping: each goes for himself, and need not look again;
or it is freed, because its leader failed, gave up or is gone: one of those who followed leads the next.

Nothing here waits for a lock: what ends a flight may be a finaliser, which the garbage collector runs in the middle
of anything. It is enough that one step on a dict or a lock is one step.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from dispatch_core._flow import Flow, step
from dispatch_core._fork import renew_in_child
from dispatch_core._wake import Sleeper
from dispatch_core.types import Match, Miss


class _Freed(Enum):
    FREED = "freed"


FREED = _Freed.FREED
"""The end of a flight that has no result."""

Key: TypeAlias = tuple[str, bool]
"""The id of a question's entry, and whether it may be answered by meaning."""

Outcome: TypeAlias = Match | Miss | Literal[_Freed.FREED]


@dataclass(frozen=True, slots=True)
class Shared(Match):
    """The answer to the same question, asked by somebody else at the same moment: ``exact``, of a kind of its own."""

    @property
    def kind(self) -> str:
        return "flight"


class Flight:
    """A question being answered: who leads, who waits, how it ended. ``expires`` and ``admitted`` are instants."""

    __slots__ = (
        "__weakref__", "_ending", "_loop", "_table", "_task", "_thread", "_watched",
        "admitted", "expires", "key", "outcome", "waiting",
    )  # fmt: skip

    def __init__(self, table: dict[Key, Flight], key: Key, expires: float) -> None:
        self._table = table
        self.key = key
        self.expires = expires
        self.admitted: float | None = None
        self.outcome: Outcome | None = None
        self.waiting: dict[Sleeper, None] = {}
        self._ending = threading.Lock()
        self._watched = False
        self._thread = threading.get_ident()
        self._loop, task = _here()
        # The table holds the flight: held by it, the leader's task and all that it refers to would never be dropped.
        self._task = None if task is None else weakref.ref(task)

    def end(self, outcome: Outcome) -> None:
        """Tell all who wait. Only the first end counts."""
        if not self._ending.acquire(blocking=False):
            return
        self._table.pop(self.key, None)
        self.outcome = outcome
        for sleeper in list(self.waiting):
            sleeper.wake()
        if self._watched:
            self._unwatch()

    def watch(self) -> None:
        """See to it that the flight ends if the leader's task is cancelled or will never run again. What was dropped
        ends it anyway; but the traceback of a cancelled task may hold its ticket for long."""
        task = self._leader()
        if task is None or task.done():
            # A task that ended well may have handed its ticket to another.
            if task is not None and task.cancelled():
                self.end(FREED)
            return
        if self._watched and not task.get_loop().is_closed():
            return
        self._watched = True
        try:
            task.get_loop().call_soon_threadsafe(task.add_done_callback, self._leader_ended)
        except RuntimeError:
            self.end(FREED)
        if self.outcome is not None:
            self._unwatch()

    def led_by_me(self) -> bool:
        """Would this thread wait for itself?"""
        return self._thread == threading.get_ident()

    async def led_by_my_task(self) -> bool:
        """Would this task wait for itself, or for what cannot go on before its loop ends?"""
        loop, task = _here()
        return self._thread == threading.get_ident() and (self._loop is not loop or self._leader() is task)

    def _leader(self) -> asyncio.Task[Any] | None:
        return None if self._task is None else self._task()

    def _leader_ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self.end(FREED)

    def _unwatch(self) -> None:
        """The task may serve a thousand questions more."""
        task = self._leader()
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(task.remove_done_callback, self._leader_ended)
            except RuntimeError:
                """Its loop is closed: it will call nobody."""


class Lead:
    """The duty to end a flight. Dropped, it frees those who follow."""

    __slots__ = ("_clock", "_flight")

    def __init__(self, flight: Flight, clock: Callable[[], float]) -> None:
        self._flight = flight
        self._clock = clock

    def admitted(self) -> None:
        """From here on nobody waits for the quota any more, only for the answer."""
        self._flight.admitted = self._clock()

    def end(self, outcome: Outcome) -> None:
        self._flight.end(outcome)

    def __del__(self) -> None:
        self._flight.end(FREED)


@dataclass(frozen=True, slots=True)
class Seat:
    """How to go on: with what the flight ``found``, or by oneself, as the leader of others or alone.

    ``patience`` is how many seconds are left to wait for the quota.
    """

    lead: Lead
    found: Match | Miss | None
    patience: float


class Flights:
    """The questions being answered in this process, for threads and any number of event loops at once.

    ``timeout`` is how many seconds anybody waits for others; a flight older than that is followed no more.
    ``clock`` returns monotonic seconds.
    """

    def __init__(self, *, timeout: float, clock: Callable[[], float]) -> None:
        self._timeout = timeout
        self._clock = clock
        self._table: dict[Key, Flight] = {}
        renew_in_child(self)

    def __len__(self) -> int:
        return len(self._table)

    def start_anew(self) -> None:
        """The leaders of a forked child's flights answer in the parent, and those who wait there, wait there."""
        for flight in self._table.values():
            flight.waiting.clear()
        self._table = {}

    def alone(self, patience: float, found: Match | Miss | None = None) -> Seat:
        """A seat on a flight that nobody can follow."""
        return Seat(Lead(Flight({}, ("", False), 0.0), self._clock), found, patience)

    def land(self, key: Key, match: Match) -> None:
        """Whoever has the answer, has it for all."""
        flight = self._table.get(key)
        if flight is not None:
            flight.end(match)

    def join(self, key: Key, patience: float) -> Flow[Seat]:
        """Lead the flight, or wait for what comes of it; ``patience`` is spent only while its leader waits for the
        quota too. Never raises."""
        deadline = self._clock() + self._timeout
        while True:
            flight = self._flight(key)
            if isinstance(flight, Lead):
                return Seat(flight, None, patience)
            if (yield from step(flight.led_by_me, flight.led_by_my_task)):
                return self.alone(patience)
            patience = yield from self._follow(flight, deadline, patience)
            if isinstance(flight.outcome, Match | Miss):
                return self.alone(patience, flight.outcome)
            if flight.outcome is None:
                if self._clock() < flight.expires:
                    return self.alone(patience)
                flight.end(FREED)

    def _flight(self, key: Key) -> Flight | Lead:
        """The flight to follow, or the lead of a new one."""
        table = self._table
        flight = table.get(key)
        if flight is None:
            mine = Flight(table, key, self._clock() + self._timeout)
            flight = table.setdefault(key, mine)
            if flight is mine:
                return Lead(mine, self._clock)
        return flight

    def _follow(self, flight: Flight, deadline: float, patience: float) -> Flow[float]:
        """Wait until it ends, or no longer makes sense; the patience that is left."""
        since, latest = self._clock(), min(deadline, flight.expires)
        sleeper = Sleeper()
        flight.waiting[sleeper] = None
        try:
            flight.watch()
            while flight.outcome is None:
                until = latest if flight.admitted is not None else min(latest, since + patience)
                left = until - self._clock()
                if left <= 0:
                    break
                yield from step(sleeper.wait, sleeper.await_, left)
        finally:
            flight.waiting.pop(sleeper, None)
        queued = (self._clock() if flight.admitted is None else flight.admitted) - since
        return max(0.0, patience - max(0.0, queued))


def _here() -> tuple[asyncio.AbstractEventLoop | None, asyncio.Task[Any] | None]:
    """The loop that runs in this thread, and the task that it runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None, None
    return loop, asyncio.current_task(loop)
