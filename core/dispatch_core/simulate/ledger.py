"""What the simulator has seen, counted so that any thread may ask while the server works."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

CLIENT_GONE = 499
"""The status under which `Stats.by_status` counts a client that left before its answer was complete."""
BROKEN_OFF = 599
"""The status under which `Stats.by_status` counts a connection that a fault has ended."""


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot since the start or the last reset.

    ``requests`` counts every request to a model, malformed ones included; tokens are those of requests that are
    done, as far as they were produced; ``by_status`` counts requests that are done; ``struck`` counts those that met
    a fault, whose 429s are in ``rejected_429`` too.
    """

    requests: int
    admitted: int
    rejected_429: int
    prompt_tokens: int
    completion_tokens: int
    in_flight: int
    max_in_flight: int
    by_status: Mapping[int, int]
    struck: int = 0


@dataclass(slots=True)
class Tally:
    """The counters of one stretch between two resets. A request writes to the tally it arrived under."""

    requests: int = 0
    admitted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_in_flight: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    struck: int = 0


class Ledger:
    """Counters of the running server. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tally = Tally()
        self._in_flight = 0

    def arrive(self) -> Tally:
        with self._changed:
            self._in_flight += 1
            self._tally.requests += 1
            self._tally.max_in_flight = max(self._tally.max_in_flight, self._in_flight)
            return self._tally

    def admit(self, tally: Tally) -> None:
        with self._changed:
            tally.admitted += 1

    def strike(self, tally: Tally) -> None:
        with self._changed:
            tally.struck += 1

    def settle(self, tally: Tally, prompt_tokens: int, completion_tokens: int) -> None:
        with self._changed:
            tally.prompt_tokens += prompt_tokens
            tally.completion_tokens += completion_tokens

    def leave(self, tally: Tally, status: int) -> None:
        with self._changed:
            self._in_flight -= 1
            tally.by_status[status] += 1
            self._changed.notify_all()

    def reset(self) -> None:
        """Start counting from zero. Requests in flight stay so; their numbers go to the old stretch."""
        with self._changed:
            self._tally = Tally(max_in_flight=self._in_flight)

    def wait_idle(self, timeout: float | None) -> bool:
        """Block until no request is in flight; False when `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout)

    def snapshot(self) -> Stats:
        with self._changed:
            tally = self._tally
            return Stats(
                requests=tally.requests,
                admitted=tally.admitted,
                rejected_429=tally.by_status[429],
                prompt_tokens=tally.prompt_tokens,
                completion_tokens=tally.completion_tokens,
                in_flight=self._in_flight,
                max_in_flight=tally.max_in_flight,
                by_status=dict(sorted(tally.by_status.items())),
                struck=tally.struck,
            )
