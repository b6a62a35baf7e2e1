"""Our own retries: what an SDK retries asks no limiter, here every attempt reserves anew."""

from __future__ import annotations

from dataclasses import replace

from dispatch_core import Dispatcher, Ticket
from dispatch_core._flow import Flow, step
from dispatch_core.limit import RetryPolicy, feedback_of
from llamaindex_dispatch.events import announce_wait
from llamaindex_dispatch.sending import Sending

__all__ = ["Attempts", "RetryPolicy"]


class Attempts:
    """The attempts at one call that has the right to ask the model. Without a policy there is one.

    ``timeout`` is the longest wait for each attempt's turn, in seconds.
    """

    def __init__(
        self, dispatcher: Dispatcher, policy: RetryPolicy | None, sending: Sending, timeout: float | None
    ) -> None:
        self._dispatcher = dispatcher
        self._policy = policy
        self._sending = sending
        self._timeout = timeout
        self._failed = 0

    def again(self, ticket: Ticket, error: BaseException, *, begun: bool = False) -> Flow[Ticket | None]:
        """The right to the next attempt, with a reservation of its own; None if there is none: the ticket is ended.

        What has ``begun`` to be read is not asked again. Raises `LimitExceeded` if no turn comes in time.
        """
        limiter = self._dispatcher.limiter
        feedback = feedback_of(error)
        if feedback is not None and limiter is not None:
            limiter.observe(feedback, ticket.reservation)
        self._failed += 1
        policy = None if begun or not isinstance(error, Exception) else self._policy
        wait = None if policy is None else policy.wait_after(error, self._failed)
        if policy is None or wait is None:
            self._dispatcher.abort(ticket)
            return None
        try:
            if ticket.reservation is not None:
                ticket.reservation.settle(None)
            ticket = replace(ticket, reservation=None)
            yield from step(policy.sleep, policy.asleep, wait)
            return (yield from self.reserved(ticket))
        except BaseException:
            self._dispatcher.abort(ticket)
            raise

    def reserved(self, ticket: Ticket) -> Flow[Ticket]:
        """The ticket with a place in the quota."""
        limiter, cost = self._dispatcher.limiter, (yield from self._sending.priced())
        if limiter is None or cost is None:
            return ticket
        reservation = yield from step(limiter.acquire, limiter.aacquire, cost, timeout=self._timeout)
        announce_wait(reservation)
        return replace(ticket, reservation=reservation)
