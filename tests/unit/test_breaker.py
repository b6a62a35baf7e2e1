"""The circuit breaker, as tables of instants."""

from __future__ import annotations

import pytest

from dispatch_core.breaker import Breaker


def _told(breaker: Breaker, *events: tuple[float, str]) -> list[bool]:
    tell = {"ask": breaker.allow, "fail": breaker.failure, "work": lambda now: breaker.success()}
    return [tell[event](now) for now, event in events]


@pytest.mark.parametrize(
    "table",
    [
        # Below the threshold it stays shut, and a success begins the count anew.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "ask", True)],
            *[(1, "work", False), (1, "fail", False), (1, "ask", True)],
        ],
        # The third failure in a row opens it for a second; then one may try.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(0.5, "ask", False), (0.99, "ask", False), (1, "ask", True), (1, "ask", False), (1.5, "ask", False)],
        ],
        # A trial that works shuts it.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(1, "ask", True), (1.1, "work", True), (1.1, "ask", True), (1.1, "work", False)],
        ],
        # A trial that fails doubles the pause.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(1, "ask", True), (1.5, "fail", False), (3.4, "ask", False), (3.5, "ask", True)],
            *[(3.5, "fail", False), (7.4, "ask", False), (7.5, "ask", True)],
        ],
        # A trial that never reports is followed by another.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(1, "ask", True), (1.9, "ask", False), (2, "ask", True)],
        ],
        # A hundred calls that were under way when it opened do not prolong the pause.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(0.1, "fail", False)] * 100,
            *[(0.9, "ask", False), (1, "ask", True)],
        ],
        # One that began earlier and works ends the outage too.
        [
            *[(0, "fail", False), (0, "fail", False), (0, "fail", True)],
            *[(0.1, "work", True), (0.1, "ask", True), (0.2, "fail", False), (0.2, "ask", True)],
        ],
    ],
)
def test_it_opens_waits_and_recovers(table):
    events = [(now, event) for now, event, _ in table]
    assert _told(Breaker(), *events) == [answer for *_, answer in table]


def test_the_pause_never_exceeds_the_longest():
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(3):
        breaker.failure(now)
    for _ in range(8):
        pauses.append(breaker.blocked_until - now)
        now = breaker.blocked_until
        assert breaker.allow(now)
        breaker.failure(now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_after_an_outage_the_first_pause_is_short_again():
    breaker = Breaker()
    for now in (0.0, 100.0):
        for _ in range(3):
            breaker.failure(now)
        assert breaker.blocked_until == now + 1
        breaker.allow(now + 1)
        breaker.success()
        assert not breaker.is_open
