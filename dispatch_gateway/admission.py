"""Who may call which deployment, and when: the limits of the tenant and of the deployment, together or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import LimitError, LimitExceeded
from dispatch_core.limit import TokenEstimator, TokenLimiter
from dispatch_core.limit.reservation import QuotaReservation
from dispatch_core.ports import Reservation
from dispatch_core.types import Cost, Feedback, Usage
from dispatch_gateway import config
from dispatch_gateway.tenants import Tenant

_REST = 5.0
"""Seconds for which a deployment that failed is asked last."""


class OutOfBudget(LimitExceeded):
    """A tenant's money of the day is spent."""


@dataclass(eq=False, slots=True)
class Deployment:
    """One place that serves a model. ``limiters`` is empty without limits; ``open`` counts calls under way."""

    name: str
    settings: config.Deployment
    limiters: tuple[TokenLimiter, ...] = ()
    open: int = 0
    resting_until: float = 0.0

    def price(self, usage: Usage) -> Usage:
        """In millionths of the currency."""
        prices = self.settings.prices
        return Usage(round(usage.input_tokens * prices.input), round(usage.output_tokens * prices.output))


@dataclass(eq=False, slots=True)
class Account:
    """The limits of one tenant. ``budget`` counts money as if it were tokens."""

    limiters: tuple[TokenLimiter, ...] = ()
    budget: TokenLimiter | None = None


@dataclass(frozen=True, slots=True)
class Fare(Cost):
    """What a call is expected to cost, who makes it, and who may serve it."""

    tenant: Tenant = field(default_factory=Tenant)
    account: Account = field(default_factory=Account)
    pool: Sequence[Deployment] = ()

    @classmethod
    def of(cls, cost: Cost, tenant: Tenant, account: Account, pool: Sequence[Deployment]) -> Fare:
        given, made = cost.input_tokens, cost.output_tokens
        return cls(given, made, cost.model, cost.weight, cost.guess, tenant, account, pool)


class Admission:
    """A place in the quota of a deployment and of a tenant; see the `Reservation` port. ``waited`` is in seconds."""

    __slots__ = ("_left", "_of_tenant", "_place", "_priced", "deployment", "fare", "waited")

    def __init__(self, fare: Fare) -> None:
        self.fare = fare
        self.deployment = fare.pool[0]
        self.waited = 0.0
        self._of_tenant: list[QuotaReservation] = []
        self._priced: QuotaReservation | None = None
        self._place: list[QuotaReservation] = []
        self._left = True

    @property
    def cost(self) -> Cost:
        return self.fare

    @property
    def open(self) -> bool:
        """A call is under way in its place."""
        return not self._left

    def settle(
        self,
        usage: Usage | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        first_token: float | None = None,
    ) -> None:
        for one in self._of_tenant:
            one.settle(usage)
        if self._priced is not None:
            self._priced.settle(None if usage is None else self.deployment.price(usage))
        for one in self._place:
            one.settle(usage, headers, first_token=first_token)
        self._leave()

    def cancel(self) -> None:
        self._all(QuotaReservation.cancel)
        self._leave()

    def refused(self, status: int, headers: Mapping[str, str], body: object) -> bool:
        """True if this response refuses the call for its rate: its place is given back, the deployment slows down."""
        told = [one.throttled(status, headers, body) for one in self._place]
        return any(told)

    def failed(self, now: float) -> None:
        """The deployment did not answer: others go first for a while."""
        self.deployment.resting_until = now + _REST

    def vacate(self) -> None:
        """The place at the deployment is given up, as far as it was charged; the tenant's stays."""
        for one in self._place:
            one.settle(None)
        self._place = []
        self._leave()

    def forgive(self) -> None:
        """The upstream refused: the tenant is charged nothing."""
        for one in (*self._of_tenant, *(() if self._priced is None else (self._priced,))):
            one.cancel()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self.deployment.open -= 1

    def _enter(self, deployment: Deployment, place: list[QuotaReservation]) -> None:
        self.deployment, self._place, self._left = deployment, place, False
        deployment.open += 1

    def _all(self, end: Callable[[QuotaReservation], None]) -> None:
        for one in (*self._of_tenant, *(() if self._priced is None else (self._priced,)), *self._place):
            end(one)


class Admissions:
    """The limiter of a gateway's dispatcher: all costs that it is asked for are fares.

    The tenant's limits come first: who waits there holds up nobody but himself.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.estimator = TokenEstimator()
        self._clock = clock

    def estimate(self, text: str, *, max_tokens: int | None = None, model: str = "") -> Cost:
        return self.estimator.estimate(text, max_tokens=max_tokens, model=model)

    def acquire(self, cost: Cost, *, timeout: float | None = None) -> Reservation:
        return run(self._acquire(cost, timeout))

    async def aacquire(self, cost: Cost, *, timeout: float | None = None) -> Reservation:
        at_once = self._at_once(cost)
        return at_once if at_once is not None else await arun(self._acquire(cost, timeout))

    async def amove(self, admission: Admission, tried: Sequence[Deployment], timeout: float) -> None:
        """Another place for a call that failed: at a deployment not tried yet, or in turn. Raises `LimitError`."""
        admission.vacate()
        fresh = [one for one in admission.fare.pool if one not in tried] or list(admission.fare.pool)
        await arun(self._placed(admission, fresh, self._clock() + timeout))

    def observe(self, feedback: Feedback, reservation: Reservation | None = None) -> None:
        """What a response said is told to the admission itself, which knows the deployment."""

    def _at_once(self, cost: Cost) -> Admission | None:
        """The common case in few steps: one deployment, no limits but its own, and room for the call."""
        if not isinstance(cost, Fare) or len(cost.pool) != 1:
            return None
        account, deployment, tenant = cost.account, cost.pool[0], cost.tenant
        if account.limiters or account.budget is not None or len(deployment.limiters) != 1:
            return None
        limiter = deployment.limiters[0]
        held = limiter.reserve(cost, priority=tenant.priority, key=tenant.name)
        if not limiter.enter_at_once(held.charge):
            return None
        admission = Admission(cost)
        admission._enter(deployment, [held])
        return admission

    def _acquire(self, cost: Cost, timeout: float | None) -> Flow[Admission]:
        if not isinstance(cost, Fare):
            raise TypeError(f"the gateway's limiter is asked for fares, not for {type(cost).__name__}")
        begun = self._clock()
        until = begun + (timeout if timeout is not None else math.inf)
        admission = Admission(cost)
        try:
            yield from self._charged(admission, until)
            yield from self._placed(admission, cost.pool, until)
        except BaseException:
            admission.cancel()
            raise
        admission.waited = self._clock() - begun
        return admission

    def _charged(self, admission: Admission, until: float) -> Flow[None]:
        """The tenant's own limits, then his money."""
        fare, account = admission.fare, admission.fare.account
        for limiter in account.limiters:
            admission._of_tenant.append((yield from self._turn(limiter, fare, fare, until)))
        if account.budget is not None:
            priced = fare.pool[0].price(Usage(fare.input_tokens, fare.output_tokens))
            money = Cost(priced.input_tokens, priced.output_tokens, guess=True)
            # The next day is too far away to wait for.
            try:
                admission._priced = yield from self._turn(account.budget, money, fare, self._clock())
            except LimitExceeded as error:
                raise OutOfBudget("the budget of this key is spent", error.retry_after) from error

    def _placed(self, admission: Admission, pool: Sequence[Deployment], until: float) -> Flow[None]:
        """The least loaded deployment that has room, or the one that has some first."""
        last: LimitError | None = None
        for deployment in pool if len(pool) == 1 else self._ranked(admission.fare, pool):
            try:
                admission._enter(deployment, (yield from self._places(deployment, admission.fare, until)))
                return
            except LimitError as error:
                last = error if last is None or isinstance(error, LimitExceeded) else last
        assert last is not None
        raise last

    def _ranked(self, fare: Fare, pool: Sequence[Deployment]) -> list[Deployment]:
        """By how long they would take; each that is too small for the call last."""
        now = self._clock()

        def rank(deployment: Deployment) -> tuple[float, int]:
            try:
                waits = [one.eta(fare, priority=fare.tenant.priority) for one in deployment.limiters]
            except LimitError:
                waits = [math.inf]
            return max(0.0, deployment.resting_until - now, *waits), deployment.open

        return sorted(pool, key=rank)

    def _places(self, deployment: Deployment, fare: Fare, until: float) -> Flow[list[QuotaReservation]]:
        held: list[QuotaReservation] = []
        try:
            for limiter in deployment.limiters:
                turn = yield from self._turn(limiter, fare, fare, until)
                held.append(turn)
        except BaseException:
            for one in held:
                one.cancel()
            raise
        return held

    def _turn(self, limiter: TokenLimiter, cost: Cost, fare: Fare, until: float) -> Flow[QuotaReservation]:
        patience = until - self._clock()
        return (
            yield from step(
                limiter.acquire,
                limiter.aacquire,
                cost,
                timeout=None if patience == math.inf else max(0.0, patience),
                priority=fare.tenant.priority,
                key=fare.tenant.name,
            )
        )
