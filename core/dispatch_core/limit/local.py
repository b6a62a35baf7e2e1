"""The limiter of one process: a queue in front of a quota, for threads and any number of event loops at once."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError, LimitExceeded, RequestTooLarge
from dispatch_core.limit.bucket import Charge, Dimension, WindowQuota
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.types import Cost, Feedback, Usage

_BURST_SECONDS = 2.0
_JITTER_PAD = 0.5
_DEFAULT_GATE = 1.0
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
        self._lock = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._gate = -math.inf
        self._admitted = self._rejected = self._throttled = self._open = 0

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
        amounts = self._amounts(cost)
        limit_on_wait = _least(timeout, self._max_wait)
        deadline = math.inf if limit_on_wait is None else self._clock() + limit_on_wait
        waiter = self._enqueue(amounts, deadline)
        try:
            while waiter.charge is None:
                yield from step(waiter.wait, waiter.await_, self._patience(waiter, deadline))
                self._pump()
        except BaseException:
            self._leave(waiter)
            raise
        return QuotaReservation(self, cost, waiter.charge)

    def eta(self, cost: Cost) -> float:
        """Seconds that a call made now would wait, as far as can be known."""
        with self._lock:
            return self._eta(self._amounts(cost), self._clock())

    def observe(self, feedback: Feedback) -> None:
        """After a 429 nobody is admitted before ``retry_after`` seconds have passed, at most a minute."""
        if feedback.status not in _THROTTLED:
            return
        pause = feedback.retry_after
        if pause is None or not 0 <= pause < math.inf:
            pause = _DEFAULT_GATE
        with self._lock:
            self._throttled += 1
            self._gate = max(self._gate, self._clock() + min(pause, 60.0))

    def stats(self) -> LimiterStats:
        with self._lock:
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

    def settle(self, charge: Charge, cost: Cost, usage: Usage | None) -> None:
        """Rewrite a charge to the real usage and let the next ones in; for `QuotaReservation`."""
        with self._lock:
            if charge.settled:
                return
            self._open -= 1
            self._quota.settle(charge, None if usage is None else self._amounts_of(usage.total))
            self._rouse()
        if usage is not None:
            self._estimator.learn(cost, usage)
        self._pump()

    def cancel(self, charge: Charge) -> None:
        """Give a charge back whole; for `QuotaReservation`."""
        with self._lock:
            if charge.settled:
                return
            self._open -= 1
            self._quota.settle(charge, [0.0] * len(charge.amounts))
            self._rouse()
        self._pump()

    def _amounts_of(self, tokens: int) -> list[float]:
        amounts = [(self._requests, 1.0), (self._tokens, float(tokens))]
        return [amount for dimension, amount in amounts if dimension is not None]

    def _amounts(self, cost: Cost) -> list[float]:
        if cost.input_tokens < 0 or cost.output_tokens < 0:
            raise ConfigError(f"a cost cannot be negative: {cost}")
        if self._tokens is not None and cost.tokens > self._tokens.limit:
            raise RequestTooLarge(cost.tokens, int(self._tokens.limit))
        return self._amounts_of(cost.tokens)

    def _enqueue(self, amounts: list[float], deadline: float) -> _Waiter:
        """Join the queue, or be admitted at once, or be refused at once when the turn would come too late."""
        waiter = _Waiter(amounts, self._lock)
        with self._lock:
            now = self._clock()
            full = self._max_queue is not None and len(self._queue) >= self._max_queue
            eta = self._eta(amounts, now) if full or deadline < math.inf else 0.0
            if eta > 0 and (full or now + eta > deadline):
                self._rejected += 1
                why = "the queue is full" if full else "its turn would come too late"
                raise LimitExceeded(f"not admitted, {why}: retry in {eta:.1f} s", eta)
            self._queue.append(waiter)
            self._admit(now)
        return waiter

    def _eta(self, amounts: list[float], now: float) -> float:
        wait = max(self._quota.wait(amounts, now), self._gate - now, 0.0)
        if not self._queue:
            return wait
        ahead = [sum(column) for column in zip(*(w.amounts for w in self._queue), strict=True)]
        behind = [a + b for a, b in zip(ahead, amounts, strict=True)]
        paced: float = max(
            (amount - max(0.0, dimension.level)) / dimension.rate
            for amount, dimension in zip(behind, self._quota.dimensions, strict=True)
        )
        return max(wait, paced, self._quota.wait(self._queue[0].amounts, now))

    def _pump(self) -> None:
        with self._lock:
            self._admit(self._clock())

    def _admit(self, now: float) -> None:
        """Let in everyone at the head who fits, then tell the new head to mind the clock. Needs the lock."""
        while self._queue and now >= self._gate and self._quota.wait(self._queue[0].amounts, now) <= 0:
            waiter = self._queue.popleft()
            waiter.charge = self._quota.charge(waiter.amounts, now)
            self._admitted += 1
            self._open += 1
            waiter.wake()
        if self._queue and not self._queue[0].leads:
            self._queue[0].leads = True
            self._queue[0].wake()

    def _rouse(self) -> None:
        """The head's wait may be shorter now: let it look at the clock again. Needs the lock."""
        if self._queue:
            self._queue[0].leads = False

    def _patience(self, waiter: _Waiter, deadline: float) -> float | None:
        """How long to sleep: the head until it fits, everyone else until woken, nobody past the deadline."""
        with self._lock:
            now = self._clock()
            if waiter.charge is not None:
                return 0.0
            if now >= deadline:
                self._rejected += 1
                raise LimitExceeded("not admitted within the timeout", self._eta(waiter.amounts, now))
            until = deadline - now
            if self._queue and self._queue[0] is waiter:
                until = min(until, max(self._quota.wait(waiter.amounts, now), self._gate - now))
            return None if until == math.inf else until

    def _leave(self, waiter: _Waiter) -> None:
        """Undo a wait that was cancelled, wherever it was: nothing stays charged and no wake-up is lost."""
        with self._lock:
            if waiter.charge is None:
                self._queue.remove(waiter)
        if waiter.charge is not None:
            self.cancel(waiter.charge)
        else:
            self._pump()


class _Waiter:
    """One call in the queue, and how to wake it: a thread by an event, a task through its own loop."""

    __slots__ = ("_event", "_future", "_lock", "_woken", "amounts", "charge", "leads")

    def __init__(self, amounts: list[float], lock: threading.Lock) -> None:
        self.amounts = amounts
        self.charge: Charge | None = None
        self.leads = False
        self._lock = lock
        self._woken = False
        self._event: threading.Event | None = None
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Needs the limiter's lock."""
        self._woken = True
        if self._event is not None:
            self._event.set()
        if self._future is not None:
            try:
                self._future.get_loop().call_soon_threadsafe(_resolve, self._future)
            except RuntimeError:
                # Its loop is closed; when the abandoned coroutine is collected, it leaves and gives its place back.
                self._future = None

    def wait(self, seconds: float | None) -> None:
        with self._lock:
            if self._woken:
                self._woken = False
                return
            event = self._event = self._event or threading.Event()
        event.wait(seconds)
        with self._lock:
            event.clear()
            self._woken = False

    async def await_(self, seconds: float | None) -> None:
        with self._lock:
            if self._woken:
                self._woken = False
                return
            future = self._future = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            with self._lock:
                self._future = None
                self._woken = False


class QuotaReservation:
    """A place in a quota; see the `Reservation` port."""

    __slots__ = ("_charge", "_limiter", "cost")

    def __init__(self, limiter: TokenLimiter, cost: Cost, charge: Charge) -> None:
        self._limiter = limiter
        self._charge = charge
        self.cost = cost

    def settle(self, usage: Usage | None = None) -> None:
        self._limiter.settle(self._charge, self.cost, usage)

    def cancel(self) -> None:
        self._limiter.cancel(self._charge)


class Reserving(AbstractContextManager[QuotaReservation], AbstractAsyncContextManager[QuotaReservation]):
    """The pending reservation of ``with`` and ``async with``. What was not settled inside keeps its estimate."""

    def __init__(self, limiter: TokenLimiter, cost: Cost, timeout: float | None) -> None:
        self._limiter = limiter
        self._cost = cost
        self._timeout = timeout
        self._held: QuotaReservation | None = None

    def __enter__(self) -> QuotaReservation:
        self._held = self._limiter.acquire(self._cost, timeout=self._timeout)
        return self._held

    async def __aenter__(self) -> QuotaReservation:
        self._held = await self._limiter.aacquire(self._cost, timeout=self._timeout)
        return self._held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.settle(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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
