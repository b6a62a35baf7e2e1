"""The limiter of one process: a queue in front of a quota, for threads and any number of event loops at once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError, LimitExceeded, RequestTooLarge
from dispatch_core.limit.bucket import Charge, Dimension, WindowQuota
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.reservation import QuotaReservation, Reserving
from dispatch_core.limit.waiting import Waiter
from dispatch_core.types import Cost, Feedback, Usage

T = TypeVar("T")

_BURST_SECONDS = 2.0
_JITTER_PAD = 0.5
_DEFAULT_GATE = 1.0
_LONGEST_GATE = 60.0
_OVERDUE, _GRACE = 1.25, 0.5
_THROTTLED = (429, 529)


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A snapshot: calls admitted, refused and throttled by the provider so far; waiting and open right now."""

    admitted: int
    rejected: int
    throttled: int
    waiting: int
    open: int
    requests_used: float
    tokens_used: float


class TokenLimiter:
    """Admits calls within ``rpm`` requests and ``tpm`` tokens per minute, first come, first served.

    The provider may count over a shorter ``window`` (in seconds): the limits scale with it. A call that does not fit
    waits; it is refused with `LimitExceeded` when its turn would come after ``timeout`` (or ``max_wait``) seconds or
    when ``max_queue`` calls wait already, and with `RequestTooLarge` when it could never fit. ``burst`` is how many
    seconds' worth of quota may be spent at once after a quiet time. ``clock`` returns monotonic seconds.

    Use it as ``with limiter.reserve("prompt", max_tokens=100) as r: ...; r.settle(usage)`` or ``async with``.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        window: float = 60.0,
        burst: float = _BURST_SECONDS,
        max_queue: int | None = None,
        max_wait: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rpm is None and tpm is None:
            raise ConfigError("a limiter needs rpm, tpm or both")
        for name, value in (("rpm", rpm), ("tpm", tpm), ("window", window), ("burst", burst)):
            _positive(name, value)
        _not_negative("max_queue", max_queue)
        _not_negative("max_wait", max_wait)
        pad = min(_JITTER_PAD, window / 10)
        self._requests = _dimension("requests", rpm, window, burst)
        self._tokens = _dimension("tokens", tpm, window, burst)
        dimensions = [d for d in (self._requests, self._tokens) if d is not None]
        self._quota = WindowQuota(dimensions, window=window, pad=pad)
        self._estimator = TokenEstimator()
        self._max_queue = max_queue
        self._max_wait = max_wait
        self._clock = clock
        self._gate = -math.inf
        self._admitted = self._rejected = self._throttled = self._open = 0
        self._joined = [0.0] * len(dimensions)
        self._gone = [0.0] * len(dimensions)
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """Begin with an empty queue: nobody who waits in a parent process waits here."""
        self._lock = threading.Lock()
        self._posted: deque[Callable[[], None]] = deque()
        self._queue: deque[Waiter] = deque()
        self._gone = list(self._joined)

    def estimate(self, text: str, *, max_tokens: int | None = None, model: str = "") -> Cost:
        """What a call with this prompt will probably cost."""
        return self._estimator.estimate(text, max_tokens=max_tokens, model=model)

    def reserve(
        self,
        prompt: str | int | Cost,
        *,
        max_tokens: int | None = None,
        model: str = "",
        timeout: float | None = None,
    ) -> Reserving:
        """A context manager, for ``with`` and ``async with``, that holds a place in the quota.

        ``prompt`` is its text, its number of tokens, or a `Cost`; ``timeout`` is in seconds, 0 means now or never.
        """
        if isinstance(prompt, str):
            cost = self.estimate(prompt, max_tokens=max_tokens, model=model)
        elif isinstance(prompt, Cost):
            cost = prompt
        else:
            cost = Cost(prompt, max_tokens or 0, model)
        return Reserving(self, cost, timeout)

    def acquire(self, cost: Cost, *, timeout: float | None = None) -> QuotaReservation:
        """Wait for a turn. Raises `LimitExceeded` or `RequestTooLarge`."""
        return run(self.acquire_flow(cost, timeout))

    async def aacquire(self, cost: Cost, *, timeout: float | None = None) -> QuotaReservation:
        return await arun(self.acquire_flow(cost, timeout))

    def acquire_flow(self, cost: Cost, timeout: float | None) -> Flow[QuotaReservation]:
        waiter = Waiter(self._amounts(cost))
        longest = _least(timeout, self._max_wait)
        deadline = math.inf if longest is None else self._clock() + longest
        try:
            self._alone(partial(self._join, waiter, deadline))
            while waiter.charge is None:
                patience = self._alone(partial(self._patience, waiter, deadline))
                yield from step(waiter.wait, waiter.await_, patience)
        except BaseException:
            self._post(partial(self._leave, waiter))
            raise
        return QuotaReservation(self, cost, waiter.charge)

    def eta(self, cost: Cost) -> float:
        """Seconds that a call made now would wait, as far as can be known."""
        amounts = self._amounts(cost)
        return self._alone(lambda: self._eta(amounts, self._joined, self._clock()))

    def observe(self, feedback: Feedback) -> None:
        """After a 429 nobody is admitted before ``retry_after`` seconds have passed, at most a minute."""
        if feedback.status in _THROTTLED:
            self._post(partial(self._close_gate, feedback.retry_after))

    def stats(self) -> LimiterStats:
        return self._alone(self._stats)

    def settle(self, charge: Charge, cost: Cost, usage: Usage | None) -> None:
        """Rewrite a charge to the real usage and let the next ones in; for `QuotaReservation`."""
        self._post(partial(self._settle, charge, cost, usage))

    def cancel(self, charge: Charge) -> None:
        """Give a charge back whole; for `QuotaReservation`."""
        self._post(partial(self._give_back, charge))

    # The lock. The garbage collector may close an abandoned stream, and so settle it, at any moment, also while this
    # very thread holds the lock. So what ends a call is never waited for: it is posted, and done by whoever has the
    # lock or takes it next.

    def _alone(self, job: Callable[[], T]) -> T:
        try:
            with self._lock:
                self._work()
                return job()
        finally:
            self._catch_up()

    def _post(self, job: Callable[[], None]) -> None:
        self._posted.append(job)
        self._catch_up()

    def _catch_up(self) -> None:
        while self._posted and self._lock.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._lock.release()

    def _work(self) -> None:
        while self._posted:
            self._posted.popleft()()

    # From here on, everything needs the lock.

    def _join(self, waiter: Waiter, deadline: float) -> None:
        """Join the queue, or be admitted at once, or be refused at once when the turn would come too late."""
        now = self._clock()
        full = self._max_queue is not None and len(self._queue) >= self._max_queue
        eta = self._eta(waiter.amounts, self._joined, now) if full or deadline < math.inf else 0.0
        if eta > 0 and (full or now + eta > deadline):
            self._rejected += 1
            why = "the queue is full" if full else "its turn would come too late"
            raise LimitExceeded(f"not admitted, {why}: retry in {eta:.1f} s", eta)
        waiter.ahead = tuple(self._joined)
        _add(self._joined, waiter.amounts)
        self._queue.append(waiter)
        self._admit(now)

    def _patience(self, waiter: Waiter, deadline: float) -> float:
        """How long to sleep. The head minds the clock, until it fits; everybody else is woken, and looks for himself
        only when his turn is overdue: the head may be a task of a loop that does not run."""
        now = self._clock()
        self._admit(now)
        if waiter.charge is not None:
            return 0.0
        if now >= deadline:
            self._rejected += 1
            raise LimitExceeded("not admitted within the timeout", self._eta(waiter.amounts, waiter.ahead, now))
        if self._queue[0] is waiter:
            wait = max(self._quota.wait(waiter.amounts, now), self._gate - now)
        else:
            wait = self._eta(waiter.amounts, waiter.ahead, now) * _OVERDUE + _GRACE
        return min(deadline - now, wait)

    def _eta(self, amounts: Sequence[float], before: Sequence[float], now: float) -> float:
        """Seconds until these amounts are admitted behind all that joined the queue before."""
        wait = max(self._quota.wait(amounts, now), self._gate - now, 0.0)
        if not self._queue:
            return wait
        wait = max(wait, self._quota.wait(self._queue[0].amounts, now))
        for dimension, amount, joined, gone in zip(self._quota.dimensions, amounts, before, self._gone, strict=True):
            ahead = max(0.0, joined - gone)
            wait = max(wait, (ahead + min(amount, dimension.burst) - dimension.level) / dimension.rate)
        return wait

    def _admit(self, now: float) -> None:
        """Let in everyone at the head who fits, then tell the new head to mind the clock."""
        while self._queue:
            head = self._queue[0]
            if now < self._gate or self._quota.wait(head.amounts, now) > 0:
                if head.leads or head.wake():
                    head.leads = True
                    return
                self._drop(head)
                continue
            self._drop(head)
            head.charge = self._quota.charge(head.amounts, now)
            self._admitted += 1
            self._open += 1
            if not head.wake():
                self._give_back(head.charge)

    def _drop(self, waiter: Waiter) -> None:
        if self._queue and self._queue[0] is waiter:
            self._queue.popleft()
        elif waiter in self._queue:
            self._queue.remove(waiter)
        else:
            return
        _add(self._gone, waiter.amounts)

    def _leave(self, waiter: Waiter) -> None:
        """Undo a wait that was cancelled, wherever it was: nothing stays charged and no wake-up is lost."""
        self._drop(waiter)
        if waiter.charge is not None:
            self._give_back(waiter.charge)
        self._admit(self._clock())

    def _settle(self, charge: Charge, cost: Cost, usage: Usage | None) -> None:
        if charge.settled:
            return
        if usage is not None:
            self._estimator.learn(cost, usage)
        self._end(charge, None if usage is None else self._amounts_of(max(0, usage.total)))

    def _give_back(self, charge: Charge) -> None:
        if not charge.settled:
            self._end(charge, [0.0] * len(charge.amounts))

    def _end(self, charge: Charge, amounts: list[float] | None) -> None:
        self._open -= 1
        self._quota.settle(charge, amounts)
        if self._queue:
            # Its wait may be shorter now: let it look at the clock again.
            self._queue[0].leads = False
        self._admit(self._clock())

    def _close_gate(self, retry_after: float | None) -> None:
        known = retry_after is not None and 0 <= retry_after < math.inf
        pause = min(retry_after, _LONGEST_GATE) if known and retry_after is not None else _DEFAULT_GATE
        self._throttled += 1
        self._gate = max(self._gate, self._clock() + pause)

    def _stats(self) -> LimiterStats:
        self._quota.wait([0.0] * len(self._quota.dimensions), self._clock())
        return LimiterStats(
            admitted=self._admitted,
            rejected=self._rejected,
            throttled=self._throttled,
            waiting=len(self._queue),
            open=self._open,
            requests_used=self._requests.used if self._requests else 0.0,
            tokens_used=self._tokens.used if self._tokens else 0.0,
        )

    def _amounts(self, cost: Cost) -> list[float]:
        if cost.input_tokens < 0 or cost.output_tokens < 0:
            raise ConfigError(f"a cost cannot be negative: {cost}")
        tokens = cost.tokens
        if self._tokens is not None and tokens > self._tokens.limit:
            asked = cost.input_tokens if cost.guess else tokens
            if asked > self._tokens.limit:
                raise RequestTooLarge(asked, int(self._tokens.limit))
            # Only our guess of the answer's length is too large; a guess must not lock anybody out.
            tokens = int(self._tokens.limit)
        return self._amounts_of(tokens)

    def _amounts_of(self, tokens: int) -> list[float]:
        amounts = [(self._requests, 1.0), (self._tokens, float(tokens))]
        return [amount for dimension, amount in amounts if dimension is not None]


def _add(sums: list[float], amounts: Sequence[float]) -> None:
    for index, amount in enumerate(amounts):
        sums[index] += amount


def _dimension(name: str, per_minute: float | None, window: float, burst: float) -> Dimension | None:
    if per_minute is None:
        return None
    limit = per_minute * window / 60.0
    if name == "requests" and limit < 1:
        raise ConfigError(f"rpm={per_minute} over {window} s allows not a single request")
    return Dimension(name, limit, window, min(limit, max(1.0, limit / window * burst)))


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a positive, finite number, got {value}")


def _not_negative(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise ConfigError(f"{name} must not be negative, got {value}")


def _least(*values: float | None) -> float | None:
    given = [value for value in values if value is not None]
    return min(given) if given else None
