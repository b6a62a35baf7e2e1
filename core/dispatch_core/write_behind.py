"""Writes that the answer does not wait for: one thread, a bounded queue, nothing lost at exit."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable

from dispatch_core._fork import renew_in_child

_AT_EXIT = 5.0
_WRITERS: weakref.WeakSet[WriteBehind] = weakref.WeakSet()


class WriteBehind:
    """Runs jobs in order in a background thread. What a job raises goes to `threading.excepthook`; the others go on.

    A full queue, or a system without another thread to give, makes the caller do its own job: slower, never
    unbounded, never lost. At exit of the interpreter, what is queued is finished for up to five seconds.
    """

    def __init__(self, *, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._jobs: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._running = self._busy = False
        _WRITERS.add(self)
        renew_in_child(self)

    @property
    def pending(self) -> int:
        """Jobs not finished yet, the running one included."""
        return len(self._jobs) + self._busy

    def submit(self, job: Callable[[], object]) -> None:
        with self._changed:
            if len(self._jobs) < self._capacity and (self._running or self._start()):
                self._jobs.append(job)
                return
        job()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is written; False if ``timeout`` seconds did not suffice."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.pending, timeout)

    async def aflush(self, timeout: float | None = None) -> bool:
        return await asyncio.to_thread(self.flush, timeout)

    def _start(self) -> bool:
        """Start the thread; False if the system gives none. Needs the lock."""
        try:
            threading.Thread(target=self._work, name="dispatch-write", daemon=True).start()
        except RuntimeError:
            self._running = False
        else:
            self._running = True
        return self._running

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                if not self._jobs:
                    # The thread ends with its work; the next job starts another. Nothing to close, nothing to leak.
                    self._running = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
                self._busy = True
            try:
                job()
            except BaseException:
                with self._changed:
                    self._busy = False
                    # This thread ends with the report of the error; another takes over what is left.
                    self._start()
                raise

    def start_anew(self) -> None:
        """A forked child has the queue but not the thread, perhaps a lock that nobody will release; the parent does
        the queued jobs."""
        self._changed = threading.Condition()
        self._jobs.clear()
        self._running = self._busy = False


@atexit.register
def _finish() -> None:
    for writer in list(_WRITERS):
        writer.flush(_AT_EXIT)
