"""The desk of one process: a line in front of a quota, for threads and any number of event loops at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dispatch_core._flow import Flow, step
from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError, LimitExceeded
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.limits import Limits
from dispatch_core.limit.line import Line
from dispatch_core.limit.quota import Charge
from dispatch_core.limit.reservation import QuotaReservation
from dispatch_core.limit.serial import Serial
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.waiting import Waiter
from dispatch_core.types import Cost, Feedback, Usage

_DEFAULT_GATE = 1.0
_LONGEST_GATE = 60.0
_LONGEST_GATE_OF_A_DAY = 3600.0
_FEW_TOKENS = 32
_TRAVEL = 0.05
_ROUND_TRIP = 2.0
_OVERDUE, _GRACE = 1.25, 0.5
_GAIN, _RECENT = 0.05, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a line: how many may stand in it and how long, in seconds, and what priorities and keys weigh."""

    clock: Callable[[], float]
    aging: float
    max_queue: int | None = None
    max_wait: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)


class Desk:
    """Lets calls in, first come, first served, as far as the quota goes."""

    def __init__(self, limits: Limits, rules: Rules, estimator: TokenEstimator) -> None:
        self.limits = limits
        self.quota = limits.quota()
        self.line: Line[Waiter]
        self._rules = rules
        self._estimator = estimator
        self._clock = rules.clock
        self._slots = next((gauge for gauge in self.quota.gauges if isinstance(gauge, SlotGauge)), None)
        self._sized = next((i for i, unit in enumerate(limits.units) if unit in ("token", "input")), None)
        self.admitted = self.rejected = self.throttled = self._ended = 0
        self._kept = 1.0
        self._used: deque[tuple[Cost, Usage]] = deque(maxlen=_RECENT)
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """Begin with an empty line: nobody who waits in a parent process waits here."""
        self.serial = Serial()
        self.line = Line(aging=self._rules.aging, weight=lambda key: self._rules.weights.get(key, 1.0))
        self._leader: Waiter | None = None
        for charge in list(self.quota.record.charges):
            # What is open here is the parent's to end.
            self.quota.settle(charge, None)
        self._ended = self.admitted
        if self._slots is not None:
            self._slots.used = 0.0
        self._waiting = [0.0] * len(self.quota.gauges)

    @property
    def open(self) -> int:
        """Calls under way."""
        return self.admitted - self._ended

    def enter_at_once(self, charge: Charge) -> bool:
        """The common case in few steps: nobody waits, and there is room."""
        entered, serial = False, self.serial
        with serial.lock:
            if not serial.posted and not self.line.length and self.quota.try_charge(charge, self._clock()):
                self.admitted += 1
                entered = True
        if serial.posted:
            serial.catch_up()
        return entered

    def queue_up(self, held: QuotaReservation) -> Flow[None]:
        """Wait in line until the charge is made. Raises `LimitExceeded`."""
        waiter = Waiter(held, self._size(held.charge))
        deadline = self._deadline(held)
        begun = self._clock()
        try:
            self.serial.alone(partial(self._join, waiter, deadline))
            while not waiter.admitted:
                yield from self._turn(waiter, deadline)
        except BaseException:
            self.serial.post(partial(self._leave, waiter))
            raise
        held.waited = self._clock() - begun

    def _turn(self, waiter: Waiter, deadline: float) -> Flow[None]:
        """Sleep until there may be news."""
        patience = self.serial.alone(partial(self._patience, waiter, deadline))
        yield from step(waiter.wait, waiter.await_, patience)

    def settle(
        self,
        held: QuotaReservation,
        usage: Usage | None,
        told: Mapping[str, Reading] | None,
        first_token: float | None,
    ) -> None:
        """A call is over: what it used, what its headers told of the limits, seconds to its first token."""
        if usage is not None and not isinstance(usage, Usage):
            raise ConfigError(f"usage is a Usage or None, got {type(usage).__name__}")
        serial = self.serial
        if serial.posted or not serial.lock.acquire(False):
            serial.post(partial(self._settle, held, usage, told, first_token))
            return
        try:
            self._settle(held, usage, told, first_token)
        finally:
            serial.lock.release()
        if serial.posted:
            serial.catch_up()

    def cancel(self, charge: Charge) -> None:
        """The call was never sent."""
        self.serial.post(partial(self._end, charge, [0.0] * len(charge.amounts)))

    def refuse(self, charge: Charge | None, feedback: Feedback, told: Mapping[str, Reading]) -> None:
        """The provider refused a call; without its charge nobody knows which."""
        self.serial.post(partial(self._refuse, charge, feedback, told))

    def eta(self, held: QuotaReservation) -> float:
        return self.serial.alone(partial(self._eta, held))

    def gauges(self) -> Mapping[str, tuple[float, float, float]]:
        """Each limit, what is used of it right now and the share of it that is granted, as far as this process
        knows."""
        return self.serial.alone(self._gauges)

    def close(self) -> None:
        """Nothing to release."""

    async def aclose(self) -> None:
        """Nothing to release."""

    # From here on, everything needs the lock.

    def _gauges(self) -> Mapping[str, tuple[float, float, float]]:
        self.quota.wait([0.0] * len(self._waiting), self._clock())
        return {gauge.name: (gauge.limit, gauge.used, gauge.share) for gauge in self.quota.gauges}

    def _join(self, waiter: Waiter, deadline: float) -> None:
        """Join the line, or be admitted at once, or be refused at once when the turn would come too late."""
        now, most = self._clock(), self._rules.max_queue
        full = most is not None and len(self.line) >= most and not waiter.again
        eta = self._eta(waiter.held) if full or deadline < math.inf else 0.0
        if eta > 0 and (full or now >= deadline or (eta < math.inf and now + eta > deadline)):
            self.rejected += 1
            raise exceeded(f"not admitted, {'the queue is full' if full else 'its turn would come too late'}", eta)
        waiter.since = now if waiter.held.since is None else waiter.held.since
        self._stand(waiter)
        self._admit(now)

    def _stand(self, waiter: Waiter) -> None:
        self.line.push(waiter)
        _add(self._waiting, waiter.held.charge.amounts, 1)

    def _patience(self, waiter: Waiter, deadline: float) -> float:
        """How long to sleep. The head minds the clock, until it fits; everybody else is woken, and looks for himself
        only when his turn is overdue: the head may be a task of a loop that does not run."""
        now = self._clock()
        self._admit(now)
        if waiter.admitted:
            return 0.0
        self._mind(waiter, deadline, now)
        if self.line.head() is waiter:
            self._leader = waiter
            charge = waiter.held.charge
            return min(deadline - now, self.quota.wait(charge.amounts, now, charge.noise))
        return min(deadline - now, self._overdue(now))

    def _mind(self, waiter: Waiter, deadline: float, now: float) -> None:
        if now >= deadline:
            self.rejected += 1
            raise exceeded("not admitted within the timeout", self._eta(waiter.held, inside=True))

    def _overdue(self, now: float) -> float:
        return self.quota.wait_paced(self._waiting, now) * _OVERDUE + _GRACE

    def _eta(self, held: QuotaReservation, *, inside: bool = False) -> float:
        """Seconds until it is admitted behind all that go before it; ``inside``: it stands in line itself."""
        return self.quota.wait_behind(held.charge.amounts, self._ahead(held, inside), self._clock())

    def _ahead(self, held: QuotaReservation, inside: bool) -> Sequence[float]:
        """What goes before it. What that will give back when it settles is reckoned from what others gave back."""
        if not self.line:
            return self._waiting
        size = self._size(held.charge)
        share = self.line.share_ahead(held.priority, held.key, size, held.since)
        own = held.charge.amounts if inside else (0.0,) * len(self._waiting)
        kept = self._kept_lately()
        return [
            max(0.0, amount * share - mine) * (kept if unit in ("token", "output") else 1.0)
            for amount, mine, unit in zip(self._waiting, own, self.limits.units, strict=True)
        ]

    def _kept_lately(self) -> float:
        """The part of their estimates that calls came to use, a moving average."""
        while self._used:
            cost, usage = self._used.popleft()
            if cost.tokens > 0:
                self._kept += _GAIN * (min(1.0, usage.total / cost.tokens) - self._kept)
        return self._kept

    def _admit(self, now: float) -> None:
        """Let in everyone at the head who fits, then tell the new head to mind the clock."""
        line, quota = self.line, self.quota
        while (head := line.head()) is not None:
            charge = head.held.charge
            if quota.wait(charge.amounts, now, charge.noise) > 0:
                if self._lead(head):
                    return
                continue
            quota.charge(charge, now)
            self._let_in(head)
            if not head.wake():
                self._end(charge, [0.0] * len(charge.amounts))

    def _lead(self, head: Waiter) -> bool:
        """Have the head mind the clock; False if it cannot be woken any more, and is gone."""
        if self._leader is head:
            return True
        if head.wake():
            self._leader = head
            return True
        self._forget(head)
        return False

    def _let_in(self, head: Waiter) -> None:
        """Whoever asked elsewhere may have been overtaken meanwhile."""
        if self.line.head() is head:
            self.line.serve(head)
        else:
            self.line.leave(head)
        _add(self._waiting, head.held.charge.amounts, -1)
        head.admitted = True
        self.admitted += 1

    def _forget(self, waiter: Waiter) -> None:
        if not waiter.gone:
            self.line.leave(waiter)
            _add(self._waiting, waiter.held.charge.amounts, -1)

    def _leave(self, waiter: Waiter) -> None:
        """Undo a wait that was cancelled, wherever it was: nothing stays charged and no wake-up is lost."""
        if waiter.admitted:
            self._end(waiter.held.charge, [0.0] * len(waiter.held.charge.amounts))
        else:
            self._forget(waiter)
        self._admit(self._clock())

    def _settle(
        self,
        held: QuotaReservation,
        usage: Usage | None,
        told: Mapping[str, Reading] | None,
        first_token: float | None,
    ) -> None:
        charge = held.charge
        if not charge.open:
            return
        if told:
            self.quota.sync(told, charge, self._clock())
        amounts = None
        if usage is not None:
            self._estimator.learn(held.cost, usage)
            self._used.append((held.cost, usage))
            amounts = self.limits.settled(usage)
        if self._slots is not None:
            self._pace(self._slots, charge, usage, first_token)
        self._end(charge, amounts)

    def _pace(self, slots: SlotGauge, charge: Charge, usage: Usage | None, first_token: float | None) -> None:
        self.quota.absorb()
        if first_token is not None:
            slots.pace("first_token", first_token)
        elif usage is not None and usage.output_tokens >= _FEW_TOKENS:
            # In a short answer the time before its first token would count for a token's.
            slots.pace("per_token", (self._clock() - charge.at) / usage.output_tokens)

    def _end(self, charge: Charge, amounts: Sequence[float] | None) -> None:
        if not self.quota.settle(charge, amounts):
            return
        self._ended += 1
        if self.line.length:
            # The head's wait may be shorter now: let it look at the clock again.
            self._leader = None
            self._admit(self._clock())

    def _refuse(self, charge: Charge | None, feedback: Feedback, told: Mapping[str, Reading]) -> None:
        now = self._clock()
        self.throttled += 1
        if charge is None:
            # Nobody knows when it was sent: as long ago as a round trip takes, so that a volley of refusals is one.
            charge = Charge(())
            charge.at = now - _ROUND_TRIP
        self.quota.refuse(charge, feedback.dimension, told, pause_after(feedback), now)
        self._end(charge, self.limits.refused())

    def _deadline(self, held: QuotaReservation) -> float:
        given = [value for value in (held.timeout, self._rules.max_wait) if value is not None]
        return self._clock() + min(given) if given else math.inf

    def _size(self, charge: Charge) -> float:
        """What a call weighs between tenants: its tokens if those are limited, else one."""
        return 1.0 if self._sized is None else max(1.0, charge.amounts[self._sized])


def exceeded(why: str, eta: float) -> LimitExceeded:
    """The refusal, with the time after which it is worth asking again; a moment, if nobody knows."""
    after = eta if eta < math.inf else _DEFAULT_GATE
    return LimitExceeded(f"{why}: retry in {after:.1f} s", after)


def pause_after(feedback: Feedback) -> float:
    """Seconds during which nobody goes after a refusal: what the provider asks for, at most a minute, or an hour for
    a limit of a day."""
    after = feedback.retry_after
    if after is None or not 0.0 <= after < math.inf:
        return _DEFAULT_GATE
    long = feedback.dimension is not None and feedback.dimension.endswith(("_day", "_month"))
    return min(after, _LONGEST_GATE_OF_A_DAY if long else _LONGEST_GATE) + _TRAVEL


def _add(sums: list[float], amounts: Sequence[float], sign: int) -> None:
    for index, amount in enumerate(amounts):
        sums[index] += sign * amount
