"""Failing open, decided in this one place: what the cache cannot do is a miss, counted, logged once per change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from dispatch_core._flow import Flow
from dispatch_core.breaker import Breaker
from dispatch_core.errors import DispatchError
from dispatch_core.telemetry import Tally

T = TypeVar("T")
U = TypeVar("U")
_log = logging.getLogger("dispatch_core")


class FailOpen:
    """Runs flows of one part behind a circuit breaker. Unless ``enabled``, errors are counted and raised.

    ``part`` names it in the log. ``clock`` returns monotonic seconds.
    """

    def __init__(self, tally: Tally, *, enabled: bool, clock: Callable[[], float], part: str = "the cache") -> None:
        self.enabled = enabled
        self._part = part
        self._tally = tally
        self._clock = clock
        self._breaker = Breaker()
        self._lock = threading.Lock()

    @property
    def paused(self) -> bool:
        """The breaker is open: the part is left alone, but for one caller at a time who tries."""
        return self._breaker.is_open

    def safely(self, flow: Flow[T], otherwise: U, *, always: bool = False) -> Flow[T | U]:
        """Run a flow of the part; its failure, or an open breaker, gives ``otherwise``."""
        enabled = self.enabled or always
        breaker = self._breaker
        # Closed it allows everything; whether it is, is one step to see.
        if breaker.is_open and not self._allowed() and enabled:
            self._tally.count("failures")
            return otherwise
        try:
            result = yield from flow
        except Exception as error:
            self.failed(error)
            if not enabled:
                raise
            return otherwise
        if breaker.failures and self._recovered():
            _log.warning("%s works again", self._part)
        return result

    def _allowed(self) -> bool:
        with self._lock:
            return self._breaker.allow(self._clock())

    def _recovered(self) -> bool:
        with self._lock:
            return self._breaker.success()

    def failed(self, error: Exception) -> None:
        """Count an error, and log the first of a series."""
        self._tally.count("failures")
        with self._lock:
            opened = self._breaker.failure(self._clock())
            first = self._breaker.failures == 1
        if self.enabled and (opened or first):
            state = "is paused" if opened else "failed"
            # A foreign exception may quote the prompt; ours never do.
            detail = str(error) if isinstance(error, DispatchError) else "no details logged"
            name = type(error).__name__
            _log.warning("%s %s, calls go on without it: %s: %s", self._part, state, name, detail)
