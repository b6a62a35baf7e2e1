"""Of all processes that ask the same question at one moment one asks the model: a lease in the store they share.

A lease lasts for a fixed time and is not renewed: between taking the ticket and bringing the answer nothing of ours
runs, and a thread that renews on its own would do so for a caller that hangs. A call that outlasts its lease may be
made twice, which costs a call; a process that is killed holds the others up for no longer than the lease.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator

from dispatch_core._flow import Flow, pause, step
from dispatch_core._fork import renew_in_child
from dispatch_core._wake import Sleeper
from dispatch_core.errors import ConfigError
from dispatch_core.ports import LeasingStore
from dispatch_core.types import Match

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_LONG = 3_600.0


class Lease:
    """The right of this process to answer a question alone. Ended or dropped, it is given back in the background."""

    __slots__ = ("_leases", "id", "owner")

    def __init__(self, leases: Leases, id: str) -> None:
        self._leases = leases
        self.id = id
        # Of its own: who takes it over in the same process must not lose it when the former holder gives it back.
        self.owner = uuid.uuid4().hex

    def end(self) -> None:
        self._leases.take_back(self)

    def __del__(self) -> None:
        self._leases.take_back(self)


class Leases:
    """The leases that one dispatcher holds, each for at most ``seconds``.

    ``give_back`` runs the call that gives one back to the store, and does not raise; it is called in a thread that
    lives while there are leases. ``clock`` returns monotonic seconds. Raises `ConfigError` for a store that has none.
    """

    def __init__(
        self,
        store: object,
        *,
        seconds: float,
        give_back: Callable[[Flow[None]], object],
        clock: Callable[[], float],
    ) -> None:
        if not 0 < seconds < math.inf:
            raise ConfigError(f"lease is a positive number of seconds or None, got {seconds}")
        if not isinstance(store, LeasingStore):
            raise ConfigError(f"lease needs a store that processes share and that has leases, got {store!r}")
        self._store = store
        self._seconds = seconds
        self._give_back = give_back
        self._clock = clock
        self.start_anew()
        renew_in_child(self)

    def __len__(self) -> int:
        """Leases that are held, or have ended and are not given back yet."""
        return len(self._held)

    def start_anew(self) -> None:
        """The leases of a forked child are its parent's."""
        self._held: dict[str, str] = {}
        self._ended: deque[str] = deque()
        self._bell = Sleeper()
        self._working = threading.Lock()
        self._releasing = threading.Lock()

    def turn(self, id: str, look: Callable[[], Flow[Match | None]], until: float) -> Flow[Match | Lease | None]:
        """Wait until the lease is ours or another process has answered; None if the instant ``until`` comes first.

        ``look`` asks the store for the answer, exactly. Raises what the store raises.
        """
        lease = Lease(self, id)
        # From here on it may be ours, even if the call is given up.
        self._held[lease.owner] = id
        self._work_on()
        outcome: Match | Lease | None = None
        try:
            for seconds in _pauses():
                taken = yield from step(
                    self._store.lease, self._store.alease, id, owner=lease.owner, seconds=self._seconds
                )
                # Even with the lease: its last holder may have answered since our lookup.
                outcome = (yield from look()) or (lease if taken else None)
                left = until - self._clock()
                if outcome is not None or left <= 0:
                    return outcome
                yield from pause(min(seconds, left))
        finally:
            if outcome is not lease:
                lease.end()
        return None

    def take_back(self, lease: Lease) -> None:
        """Takes no lock: called by finalisers."""
        if lease.owner in self._held:
            self._ended.append(lease.owner)
            self._bell.wake()

    def flush(self, timeout: float | None = None) -> bool:
        """Give back what has ended; False if ``timeout`` seconds did not suffice."""
        if not self._releasing.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return False
        try:
            while self._ended:
                self._release_one()
        finally:
            self._releasing.release()
        return True

    def _release_one(self) -> None:
        owner = self._ended.popleft()
        # Ended and dropped, it was told twice.
        id = self._held.pop(owner, None)
        if id is not None:
            self._give_back(step(self._store.release, self._store.arelease, id, owner=owner))

    def _work_on(self) -> None:
        """Have a thread wait for leases to end: a finaliser cannot start one. Where there is none to be had, they run
        out."""
        if self._working.acquire(blocking=False):
            try:
                threading.Thread(target=self._work, name="dispatch-leases", daemon=True).start()
            except RuntimeError:
                self._working.release()

    def _work(self) -> None:
        working, bell = self._working, self._bell
        while True:
            try:
                while self._held:
                    bell.wait(_LONG)
                    self.flush()
            finally:
                working.release()
            # Who took one in between saw that somebody works.
            if not self._held or not working.acquire(blocking=False):
                return


def _pauses() -> Iterator[float]:
    seconds = _FIRST_PAUSE
    while True:
        yield seconds
        seconds = min(_LONGEST_PAUSE, seconds * 1.5)
