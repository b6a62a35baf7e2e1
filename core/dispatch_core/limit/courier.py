"""Brings what ended to Redis, in the background: whoever settles a call must not wait for a network."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Sequence
from typing import TypeAlias

from dispatch_core._flow import Flow, run
from dispatch_core.errors import StoreError
from dispatch_core.limit.redis import SharedQuota

_log = logging.getLogger("dispatch_core")

_PAGE = 250
_AGAIN = 1.0

Letter: TypeAlias = tuple[str, Sequence[float]] | float | threading.Event | None
"""A settlement, a gate in seconds, somebody who waits until all before is sent, or the end."""


class Courier:
    """One thread that sends what was handed in, many settlements in one round trip.

    Handing in never blocks and takes no lock, for the garbage collector may do it. What Redis does not take now is
    kept until it does: an unsettled charge leaves the window by itself, but a slot only with its lease.
    """

    def __init__(self, quota: SharedQuota, *, renew_every: float) -> None:
        self._quota = quota
        self._renew_every = renew_every
        self.start_anew()

    def start_anew(self) -> None:
        self._mail: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._unsent: list[tuple[str, Sequence[float]]] = []

    def start(self) -> None:
        """Not by a finaliser: starting a thread takes locks."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="dispatcher-quota", daemon=True)
            self._thread.start()

    def settle(self, lease: str, amounts: Sequence[float]) -> None:
        self._mail.put((lease, amounts))

    def close_gate(self, seconds: float) -> None:
        self._mail.put(seconds)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed in so far was sent; False if ``timeout`` seconds did not suffice."""
        if self._thread is None:
            return True
        sent = threading.Event()
        self._mail.put(sent)
        return sent.wait(timeout)

    def close(self) -> None:
        if self._thread is not None:
            self._mail.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        renew_at = time.monotonic() + self._renew_every
        waiting: list[threading.Event] = []
        while True:
            letters = self._letters(min(renew_at - time.monotonic(), _AGAIN if self._unsent else math.inf))
            self._unsent += [letter for letter in letters if isinstance(letter, tuple)]
            waiting += [letter for letter in letters if isinstance(letter, threading.Event)]
            if self._unsent and self._sent(self._quota.settle(self._unsent)):
                self._unsent = []
            for seconds in letters:
                if isinstance(seconds, float):
                    self._sent(self._quota.close_gate(seconds))
            if not self._unsent or None in letters:
                for done in waiting:
                    done.set()
                waiting = []
            if None in letters:
                return
            if time.monotonic() >= renew_at:
                # Also while there is mail: only who reserves renews by the way.
                self._sent(self._quota.renew())
                renew_at = time.monotonic() + self._renew_every

    def _letters(self, patience: float) -> list[Letter]:
        """What was handed in, at most a page; nothing if nothing comes for so many seconds."""
        try:
            letters = [self._mail.get(timeout=max(0.0, patience))]
        except queue.Empty:
            return []
        while len(letters) < _PAGE and not self._mail.empty():
            letters.append(self._mail.get())
        return letters

    def _sent(self, flow: Flow[None]) -> bool:
        try:
            run(flow)
        except StoreError:
            return False
        except Exception:
            # What Redis will never take is not sent again.
            _log.exception("a message to the shared quota was lost")
        return True
