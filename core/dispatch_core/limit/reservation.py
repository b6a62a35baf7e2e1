"""What a caller of the limiter holds: a place in the quota, and the way to it by ``with`` or ``async with``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, TypeVar

from dispatch_core.limit.headers import Reading
from dispatch_core.limit.quota import Charge
from dispatch_core.limit.verdict import Verdict
from dispatch_core.types import Cost, Usage

R = TypeVar("R", bound="QuotaReservation")
_NEVER = -math.inf


class Owner(Protocol):
    """The limiter that a reservation came from."""

    @property
    def enter_at_once(self) -> Callable[[Charge], bool]:
        """True if a fresh charge was made without waiting."""
        ...

    @property
    def settle(self) -> Callable[[QuotaReservation, Usage | None, Mapping[str, Reading] | None, float | None], None]:
        """What it used, what the headers told of the limits, seconds to the first token."""
        ...

    def enter(self, held: QuotaReservation, *, again: bool = False) -> None:
        """Wait, if it could not enter at once; a reservation that was used before gets a fresh charge first."""
        ...

    async def aenter(self, held: QuotaReservation, *, again: bool = False) -> None: ...
    def readings(self, headers: Mapping[str, str]) -> Mapping[str, Reading]: ...
    def cancel(self, held: QuotaReservation) -> None: ...
    def refused(
        self, held: QuotaReservation, status: int, headers: Mapping[str, str], body: object
    ) -> Verdict | None: ...


class QuotaReservation:
    """A place in a quota; see the `Reservation` port. ``waited`` is how many seconds its holder stood in line.

    As a context manager, ``with`` or ``async with``, it waits for its turn; what was not settled inside keeps its
    estimate.
    """

    __slots__ = ("_limiter", "charge", "cost", "key", "priority", "since", "timeout", "waited")

    def __init__(
        self,
        limiter: Owner,
        cost: Cost,
        charge: Charge,
        *,
        timeout: float | None = None,
        priority: float = 0,
        key: str = "",
    ) -> None:
        self._limiter = limiter
        self.cost = cost
        self.charge = charge
        self.timeout = timeout
        self.priority = priority
        self.key = key
        self.since: float | None = None
        self.waited = 0.0

    def settle(
        self,
        usage: Usage | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        first_token: float | None = None,
    ) -> None:
        """Replace the estimate by the real usage; None keeps the estimate. Idempotent.

        ``headers`` are the response's: they tell where the quota stands. ``first_token`` is in seconds.
        """
        self._limiter.settle(self, usage, self._limiter.readings(headers) if headers else None, first_token)

    def cancel(self) -> None:
        """Give everything back: the request was never sent. Idempotent."""
        self._limiter.cancel(self)

    def throttled(self, status: int, headers: Mapping[str, str] | None = None, body: object = None) -> bool:
        """True if this response refuses the call for its rate: what it held is given back, the limiter slows down,
        and `again` or `aagain` waits for another turn. A spent budget is no rate: False, as for any other status."""
        return self._limiter.refused(self, status, headers or {}, body) is not None

    def again(self) -> None:
        """After `throttled`: wait for a new turn, before everybody who came later. Raises as the first wait does."""
        self._limiter.enter(self, again=True)

    async def aagain(self) -> None:
        await self._limiter.aenter(self, again=True)

    def __enter__(self: R) -> R:
        charge = self.charge
        if charge.at > _NEVER or not self._limiter.enter_at_once(charge):
            self._limiter.enter(self)
        return self

    async def __aenter__(self: R) -> R:
        charge = self.charge
        if charge.at > _NEVER or not self._limiter.enter_at_once(charge):
            await self._limiter.aenter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.charge.open:
            self._limiter.settle(self, None, None, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.charge.open:
            self._limiter.settle(self, None, None, None)
