"""One question being answered: who leads, who waits, how it ended.

Nothing here waits for a lock: what ends a flight may be a finaliser, which the garbage collector runs in the middle
of anything. It is enough that one step on a dict or a lock is one step.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

from dispatch_core._wake import Sleeper
from dispatch_core.near import Block
from dispatch_core.types import Entry, Match, Miss, Vector


class _Freed(Enum):
    FREED = "freed"


FREED = _Freed.FREED
"""The end of a flight that has no result."""

Key: TypeAlias = tuple[str, bool]
"""The id of a question's entry, and whether it may be answered by meaning."""


def flight_key(miss: Miss) -> Key:
    """A question that must not be answered by meaning shares no flight with one that may."""
    return miss.id, miss.query.semantic


Outcome: TypeAlias = Match | Miss | Literal[_Freed.FREED]

_numbers = itertools.count()
_waited_for: ContextVar[int] = ContextVar("dispatch_waited_for", default=0)


@dataclass(frozen=True, slots=True)
class Shared(Match):
    """The answer to the same question, asked by somebody else at the same moment, of a kind of its own: ``exact`` if
    it was asked in the same words."""

    @property
    def kind(self) -> str:
        return "flight"


class Asker(NamedTuple):
    """Who waits: one task, or a thread with all that runs in it. Numbers, for nothing here may keep a task alive."""

    thread: int
    loop: int = 0
    task: int = 0


class Flight:
    """A question being answered: who leads, who waits, how it ended. ``expires``, ``admitted`` and ``read_since`` are
    instants.

    ``behind`` is the flight for which its leader waits, or whose answer he got. Of an answer that ``streams``,
    somebody else reads the pieces: ``read_since`` then, he has one in his hands, and has not asked for the next.
    """

    __slots__ = (
        "__weakref__", "_admitted", "_ending", "_loop", "_number", "_places", "_table", "_task", "_thread",
        "_watched", "behind", "expires", "key", "outcome", "question", "read_since", "streams", "vector", "waiting",
    )  # fmt: skip

    def __init__(self, table: dict[Key, Flight], key: Key, expires: float) -> None:
        self._table = table
        self.key = key
        self.expires = expires
        self._admitted: float | None = None
        self.outcome: Outcome | None = None
        self.behind: Flight | None = None
        self.streams = False
        self.read_since: float | None = None
        self.waiting: dict[Sleeper, None] = {}
        self.question: Entry | None = None
        self.vector: Vector | None = None
        self._number: dict[str, int] = {}
        self._places: list[tuple[Block[Flight], int]] = []
        self._ending = threading.Lock()
        self._watched = False
        self._thread = threading.get_ident()
        self._loop, task = _here()
        # The table holds the flight: held by it, the leader's task and all that it refers to would never be dropped.
        self._task = None if task is None else weakref.ref(task)

    @property
    def admitted(self) -> float | None:
        """Since when nobody waits for the quota any more, only for the answer."""
        behind = self.behind
        return self._admitted if behind is None or self._admitted is not None else behind.admitted

    @admitted.setter
    def admitted(self, instant: float) -> None:
        self._admitted = instant

    @property
    def number(self) -> int:
        """Its place among all that were announced. Whoever asks first draws it, so that all see the same."""
        return self._number.setdefault("", next(_numbers))

    @property
    def waits(self) -> bool:
        """Does its leader wait behind another?"""
        behind = self.behind
        return behind is not None and behind.outcome is None

    def announce(self, question: Entry, vector: Vector, block: Block[Flight]) -> None:
        """Let others find it by its meaning, until it ends."""
        self.question, self.vector = question, vector
        row = block.put(question.scope, vector, self)
        if row is not None:
            self._places.append((block, row))
            if self.outcome is not None:
                self._withdraw()

    def end(self, outcome: Outcome) -> None:
        """Tell all who wait. Only the first end counts."""
        if not self._ending.acquire(blocking=False):
            return
        self._table.pop(self.key, None)
        self.outcome = outcome
        self._withdraw()
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

    def read(self, since: float) -> None:
        """A piece of the answer is in the hands of whoever reads it."""
        self.read_since = since
        if not self.streams:
            self.streams = True
            # From here on they look again now and then.
            for sleeper in list(self.waiting):
                sleeper.wake()

    def held_up_by(self, asker: Asker) -> bool:
        """Can its leader not go on while this one waits? A thread that waits holds up all that runs in it, a task
        itself and whatever waits for the end of its loop."""
        if self._thread != asker.thread:
            return False
        return not asker.task or id(self._loop) != asker.loop or self._task_id == asker.task

    def leaders(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The thread and task whose waiting holds the leader up, and the thread alone."""
        return (self._thread, self._task_id), (self._thread, 0)

    @property
    def _task_id(self) -> int:
        task = self._leader()
        return 0 if task is None else id(task)

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

    def _withdraw(self) -> None:
        """Once, though the one who announces and the one who ends it may do it at the same time."""
        try:
            block, row = self._places.pop()
        except IndexError:
            return
        block.give_back(row)


class Lead:
    """The duty to end a flight. Dropped, it frees those who follow.

    As a context, it is around whatever the reader of a stream does with a piece of it.
    """

    __slots__ = ("_clock", "flight")

    def __init__(self, flight: Flight, clock: Callable[[], float]) -> None:
        self.flight = flight
        self._clock = clock

    def admitted(self) -> None:
        """From here on nobody waits for the quota any more, only for the answer."""
        self.flight.admitted = self._clock()

    def end(self, outcome: Outcome) -> None:
        self.flight.end(outcome)

    def __enter__(self) -> None:
        self.flight.read(self._clock())

    def __exit__(self, *_: object) -> None:
        self.flight.read_since = None

    def __del__(self) -> None:
        self.flight.end(FREED)


def this_thread() -> Asker:
    """Who waits, when a call blocks."""
    return Asker(threading.get_ident())


async def this_task() -> Asker:
    """Who waits, when a call is awaited."""
    loop, task = _here()
    return Asker(threading.get_ident(), id(loop), _waited_for.get() or (0 if task is None else id(task)))


@contextmanager
def waiting_for_others() -> Iterator[None]:
    """Tasks that are begun within ask on behalf of this one, which waits for them: what it holds holds them up."""
    _, task = _here()
    before = _waited_for.set(0 if task is None else id(task))
    try:
        yield
    finally:
        _waited_for.reset(before)


def asking_for(asker: int) -> None:
    """From here on this task asks on behalf of another (`task_id`), which waits for it."""
    _waited_for.set(asker)


def task_id() -> int:
    """The number of the task that runs here; 0 where there is none."""
    _, task = _here()
    return 0 if task is None else id(task)


def _here() -> tuple[asyncio.AbstractEventLoop | None, asyncio.Task[Any] | None]:
    """The loop that runs in this thread, and the task that it runs."""
    # What `asyncio.get_running_loop` asks too, which raises where there is none: dear, where most calls come from.
    loop = asyncio._get_running_loop()
    return (None, None) if loop is None else (loop, asyncio.current_task(loop))
