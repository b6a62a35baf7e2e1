"""One at a time, for threads and for the garbage collector, which may run any finaliser in the middle of anything."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger("dispatch_core")


class Serial:
    """A lock for those who wait for an answer, a post box for those who must not wait.

    The garbage collector may close an abandoned stream, and so end its call, at any moment, also while this very
    thread holds the lock. So what ends a call is never waited for: it is posted, and done by whoever has the lock or
    takes it next.
    """

    __slots__ = ("_failed", "lock", "posted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.posted: deque[Callable[[], object]] = deque()
        self._failed: deque[Exception] = deque()

    def alone(self, job: Callable[[], T]) -> T:
        """Do a job with the lock held, after all that was posted before."""
        try:
            with self.lock:
                self._work()
                return job()
        finally:
            self.catch_up()

    def post(self, job: Callable[[], object]) -> None:
        """Have a job done with the lock held, at once if it is free."""
        self.posted.append(job)
        self.catch_up()

    def catch_up(self) -> None:
        while self.posted and self.lock.acquire(blocking=False):
            try:
                self._work()
            finally:
                self.lock.release()
        while self._failed:
            # Not with the lock held: a handler may ask the limiter for its stats.
            _log.error("a call could not be settled", exc_info=self._failed.popleft())

    def _work(self) -> None:
        while self.posted:
            job = self.posted.popleft()
            try:
                job()
            except Exception as error:
                # Whoever takes the lock next has nothing to do with it.
                self._failed.append(error)
