"""What a caller of the limiter holds: a place in the quota, and the way to it by ``with`` or ``async with``."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Protocol

from dispatch_core.limit.bucket import Charge
from dispatch_core.types import Cost, Usage


class Owner(Protocol):
    """The limiter that a reservation came from."""

    def settle(self, charge: Charge, cost: Cost, usage: Usage | None) -> None: ...
    def cancel(self, charge: Charge) -> None: ...
    def acquire(self, cost: Cost, *, timeout: float | None = None) -> QuotaReservation: ...
    async def aacquire(self, cost: Cost, *, timeout: float | None = None) -> QuotaReservation: ...


class QuotaReservation:
    """A place in a quota; see the `Reservation` port."""

    __slots__ = ("_charge", "_limiter", "cost")

    def __init__(self, limiter: Owner, cost: Cost, charge: Charge) -> None:
        self._limiter = limiter
        self._charge = charge
        self.cost = cost

    def settle(self, usage: Usage | None = None) -> None:
        self._limiter.settle(self._charge, self.cost, usage)

    def cancel(self) -> None:
        self._limiter.cancel(self._charge)


class Reserving(AbstractContextManager[QuotaReservation], AbstractAsyncContextManager[QuotaReservation]):
    """The pending reservation of ``with`` and ``async with``. What was not settled inside keeps its estimate."""

    def __init__(self, limiter: Owner, cost: Cost, timeout: float | None) -> None:
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
