"""The desk of one process among several: its head of the line asks Redis, which counts for all of them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dispatch_core._flow import Flow, pause, step, unbroken
from dispatch_core.errors import ConfigError, StoreError
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.courier import Courier
from dispatch_core.limit.desk import Desk, Rules, exceeded, pause_after
from dispatch_core.limit.headers import Reading
from dispatch_core.limit.limits import Limits
from dispatch_core.limit.outage import Outage
from dispatch_core.limit.quota import Charge, Plan
from dispatch_core.limit.redis import Grant, SharedQuota
from dispatch_core.limit.reservation import QuotaReservation
from dispatch_core.limit.waiting import Waiter
from dispatch_core.limit.window import WindowGauge
from dispatch_core.types import Feedback, Usage

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_log = logging.getLogger("dispatch_core")

_LEASE = 60.0
# A call is granted this many seconds ahead at most: what others give back meanwhile would come too late for it.
_HORIZON = 0.25
_SOONEST, _LATEST = 0.02, 0.25
_LOST_ASKER = 2.0


class SharedDesk(Desk):
    """As the desk of one process, but Redis decides.

    What this process charges it also notes in gauges of its own: from them it restores what a restarted Redis forgot,
    and by one part in ``replicas`` of the limits it goes on alone while there is none.
    """

    def __init__(
        self,
        limits: Limits,
        rules: Rules,
        estimator: TokenEstimator,
        *,
        server: str | redis.Redis,
        async_server: redis.asyncio.Redis | None,
        name: str,
        replicas: int,
    ) -> None:
        if not isinstance(replicas, int) or replicas < 1:
            raise ConfigError(f"replicas must be a positive number of processes, got {replicas!r}")
        # Limits of another shape cannot share a state: during a deployment that changes it there are two.
        # Without a name, only who has the same limits shares them.
        shape = "/".join((name or repr(limits.caps), str(limits.window), *limits.units))
        self._redis = SharedQuota(server, name=shape, lease=_LEASE, async_client=async_server)
        self._courier = Courier(self._redis, renew_every=_LEASE / 3)
        self._outage = Outage(replicas)
        self._epoch = ""
        self._seen = 1
        # As long as everybody is admitted at once, who has no time to wait still has the time to ask in his turn.
        self._flowing = True
        self._marks: Sequence[float] = ()
        self._marked_at = -math.inf
        self._nothing = (0.0,) * len(limits.units)
        self._plans: tuple[Plan, ...] = ()
        super().__init__(limits, rules, estimator)

    def start_anew(self) -> None:
        super().start_anew()
        self._asking: Waiter | None = None
        self._asked_last: Waiter | None = None
        self._asking_since = self._room_at = -math.inf
        self._refused_since = math.inf
        self._refused_until = -math.inf
        # What a parent process charged, it will tell itself.
        self._inherited = frozenset(self.quota.record.charges)
        self._courier.start_anew()

    def enter_at_once(self, charge: Charge) -> bool:
        return self._alone_now() and super().enter_at_once(charge)

    def close(self) -> None:
        self.serial.alone(self._close)
        self._courier.close()
        self._redis.close()

    async def aclose(self) -> None:
        self.serial.alone(self._close)
        await asyncio.to_thread(self._courier.close)
        await self._redis.aclose()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until Redis knows what ended."""
        return self._courier.flush(timeout)

    def eta(self, held: QuotaReservation) -> float:
        """Not before the call that Redis refused last would have gone."""
        return max(self._room_at - self._clock(), super().eta(held))

    def _turn(self, waiter: Waiter, deadline: float) -> Flow[None]:
        if self.serial.alone(partial(self._may_ask, waiter, deadline)):
            yield from self._ask(waiter, deadline)
        else:
            yield from super()._turn(waiter, deadline)

    def _ask(self, waiter: Waiter, deadline: float) -> Flow[None]:
        """Ask Redis for the head of the line, and wait as long as it says."""
        horizon = self._horizon(deadline)
        grant = yield from self._granted(waiter, horizon)
        if grant is None:
            return
        self.serial.alone(partial(self._answered, waiter, grant))
        if waiter.admitted:
            if grant.wait > 0 and waiter.held.charge.lease:
                yield from pause(grant.wait)
                self.serial.alone(partial(self._call_back, waiter, deadline))
            return
        now = self._clock()
        wait = self._outage.patience(grant.wait, now)
        if wait > deadline - now:
            self.serial.alone(partial(self._too_late, wait))
        patience = max(_SOONEST, min(grant.wait - horizon, _LATEST, deadline - now))
        yield from step(waiter.wait, waiter.await_, patience)

    def _granted(self, waiter: Waiter, horizon: float) -> Flow[Grant | None]:
        """What Redis says; None if it failed. Whoever is cancelled meanwhile would not know what he was granted, and
        what is told twice counts twice."""
        amounts = waiter.held.charge.amounts
        grant: Grant | None = None
        try:
            asking = partial(self._redis.reserve, self._plans, amounts, horizon=horizon)
            grant = yield from unbroken(asking, partial(self._answered_in_vain, len(amounts)))
            if grant.epoch != self._epoch or self._outage.lasts:
                yield from unbroken(partial(self._restore, grant), self._told_in_vain)
        except BaseException as error:
            if grant is not None:
                self._unwanted(grant, len(amounts))
            if not isinstance(error, StoreError):
                raise
            self._give_up(error)
            return None
        finally:
            self.serial.alone(partial(self._asked, waiter))
        return grant

    def _horizon(self, deadline: float) -> float:
        """Further ahead the longer the head was refused already: or a large call would be overtaken for ever by the
        small ones of other processes."""
        now = self._clock()
        return max(0.0, min(_HORIZON + now - self._refused_since, deadline - now))

    def _answered_in_vain(self, width: int, asking: asyncio.Future[Grant]) -> None:
        if not asking.cancelled() and asking.exception() is None:
            self._unwanted(asking.result(), width)

    def _unwanted(self, grant: Grant, width: int) -> None:
        if grant.lease is not None:
            self._courier.settle(grant.lease, [0.0] * width)

    def _told_in_vain(self, telling: asyncio.Future[None]) -> None:
        if not telling.cancelled() and isinstance(error := telling.exception(), StoreError):
            self._give_up(error)

    def _give_up(self, error: StoreError) -> None:
        """Never log with the lock held: a handler may ask the limiter for its stats."""
        if self.serial.alone(self._lost):
            _log.warning(
                "the shared quota failed, this process keeps to 1/%d of the limits: %s", self._outage.replicas, error
            )

    def _restore(self, grant: Grant) -> Flow[None]:
        """Tell Redis what it does not know: all of our window after a restart, after an outage what we did alone."""
        forgotten, told, recovered = self.serial.alone(partial(self._unknown_to, grant))
        if recovered:
            _log.warning("the shared quota works again")
        if forgotten:
            leases = yield from self._redis.restore(self._plans, told)
            self.serial.alone(partial(self._restored, forgotten, leases))

    # From here on, everything needs the lock.

    def _close(self) -> None:
        """From now on by our part of the limits, and Redis is not asked again."""
        self._lost()
        self._outage.close()

    def _alone_now(self) -> bool:
        return self._outage.alone(self._clock())

    def _may_ask(self, waiter: Waiter, deadline: float) -> bool:
        now = self._clock()
        if self._alone_now() or self._gate(now) > 0 or not self._is_next(waiter, now):
            return False
        self._mind(waiter, deadline + self._tolerance(), now)
        if self._asked_last is not waiter:
            self._asked_last, self._refused_since = waiter, now
        self._courier.start()
        if not self._outage.lasts and (plans := self._plans_now(now)) != self._plans:
            self._plans = plans
        self._asking, self._asking_since = waiter, now
        return True

    def _plans_now(self, now: float) -> tuple[Plan, ...]:
        """What all may spend, less what others have spent and not told yet."""
        plans = self.quota.plans(self._outage.replicas)
        spent, slots = self._outage.untold(self._seen, now)
        if not spent:
            return plans
        kept = {"window": 1.0 - spent, "slots": 1.0 - slots}
        return tuple(replace(plan, capacity=plan.capacity * kept.get(plan.kind, 1.0)) for plan in plans)

    def _is_next(self, waiter: Waiter, now: float) -> bool:
        """The head asks; but if it asked and did not come back, its loop may not run: then whoever looks."""
        if self._asking is None:
            return self.line.head() is waiter
        return now - self._asking_since > _LOST_ASKER

    def _asked(self, waiter: Waiter) -> None:
        if self._asking is waiter:
            self._asking = None
        if self.line.head() is not waiter:
            self._leader = None
            self._admit(self._clock())

    def _patience(self, waiter: Waiter, deadline: float) -> float:
        now = self._clock()
        if self._outage.alone(now):
            patience = super()._patience(waiter, deadline)
            # However long he would wait alone, he asks again when he may.
            return min(patience, self._outage.left(now)) if self.line.head() is waiter else patience
        if waiter.admitted:
            return 0.0
        deadline += self._tolerance()
        self._mind(waiter, deadline, now)
        if self._asking is None and self.line.head() is waiter:
            return min(deadline - now, self._gate(now))
        return min(deadline - now, self._overdue(now))

    def _tolerance(self) -> float:
        return _LATEST if self._flowing else _SOONEST

    def _gate(self, now: float) -> float:
        """Seconds until a refusal that this process was told of lets anybody go: Redis may not know of it yet."""
        return self.quota.wait_paced(self._nothing, now)

    def _too_late(self, wait: float) -> None:
        self.rejected += 1
        raise exceeded("not admitted, its turn would come too late", wait)

    def _answered(self, waiter: Waiter, grant: Grant) -> None:
        now = self._clock()
        self._seen = max(1, grant.replicas)
        self._outage.heard(self._seen, now)
        self._flowing = grant.wait <= 0
        self._marks = grant.marks
        self._room_at = now + grant.wait if grant.lease is None else -math.inf
        if waiter.admitted:
            # Redis was given up meanwhile, and this process let him in alone.
            self._unwanted(grant, len(waiter.held.charge.amounts))
            return
        if grant.lease is None:
            return
        self._marked_at = now + grant.wait
        charge = waiter.held.charge
        # Charged now and dated later: the gauges' time must not run ahead, or they forget too early what was spent.
        self.quota.charge(charge, now)
        charge.at = now + grant.wait
        charge.marks = [(mark, 0.0) for mark in grant.marks]
        charge.lease = grant.lease
        self._let_in(waiter)
        self._admit(now)

    def _call_back(self, waiter: Waiter, deadline: float) -> None:
        """Whoever was granted ahead does not go where a call was refused meanwhile: he is the first to ask again."""
        now, held = self._clock(), waiter.held
        granted, wait = held.charge, self._refused_until - now
        if wait <= 0 or not granted.open:
            return
        held.charge = Charge(granted.amounts, granted.noise)
        self._end(granted, self._nothing)
        self.admitted, self._ended = self.admitted - 1, self._ended - 1
        waiter.admitted, waiter.again = False, True
        if wait > deadline - now:
            self._too_late(wait)
        # The time behind the gate is none in which others went before him.
        self._asked_last = None
        self._stand(waiter)
        self._admit(now)

    def _admit(self, now: float) -> None:
        """Redis admits; here the head is only told that it is its turn to ask."""
        if self._alone_now():
            super()._admit(now)
            return
        while (head := self.line.head()) is not None and head is not self._asking:
            if self._lead(head):
                return

    def _eta(self, held: QuotaReservation, *, inside: bool = False) -> float:
        if self._alone_now():
            return super()._eta(held, inside=inside)
        if not self.line or (self._flowing and not inside):
            return self._gate(self._clock())
        return self.quota.wait_paced([a * self._outage.replicas for a in self._ahead(held, inside)], self._clock())

    def _settle(
        self,
        held: QuotaReservation,
        usage: Usage | None,
        told: Mapping[str, Reading] | None,
        first_token: float | None,
    ) -> None:
        if not held.charge.lease or not self._outage.comparable(held.charge.at):
            # Admitted alone, or by a Redis that did not know all: what headers tell more is what the others used, of
            # their own parts.
            held.charge.marks = []
        super()._settle(held, usage, told, first_token)

    def _end(self, charge: Charge, amounts: Sequence[float] | None) -> None:
        if charge.open:
            super()._end(charge, amounts)
            if charge.lease:
                self._courier.settle(charge.lease, charge.amounts)

    def _refuse(self, charge: Charge | None, feedback: Feedback, told: Mapping[str, Reading]) -> None:
        super()._refuse(charge, feedback, told)
        wait = pause_after(feedback)
        self._refused_until = max(self._refused_until, self._clock() + wait)
        self._courier.close_gate(wait)

    def _lost(self) -> bool:
        """Redis failed: go on alone, by our part of the limits, and ask again later. True if that is news."""
        now, replicas = self._clock(), self._outage.replicas
        first = self._outage.lost(now)
        free = self._free()
        self.quota.divide(replicas)
        if first:
            for gauge, left in free:
                gauge.level = min(gauge.level, left / replicas)
            if not self._flowing:
                # Those whom Redis granted ahead go first.
                self.quota.hold(max(now + _HORIZON, self._marked_at), now)
        self._leader = None
        self._admit(now)
        return first

    def _free(self) -> list[tuple[WindowGauge, float]]:
        """What was left for all when Redis last told what they used, less what it may have granted since: who used
        less than his part may not catch up at once, others used it."""
        return [
            (gauge, max(0.0, gauge.capacity - used - _HORIZON * gauge.rate))
            for gauge, used in zip(self.quota.gauges, self._marks, strict=False)
            if isinstance(gauge, WindowGauge)
        ]

    def _deadline(self, held: QuotaReservation) -> float:
        """Where nobody may stand in line, nobody waits for a grant either."""
        return self._clock() if self._rules.max_queue == 0 else super()._deadline(held)

    def _unknown_to(self, grant: Grant) -> tuple[list[Charge], list[tuple[float, Sequence[float]]], bool]:
        """The charges to restore, and what to tell of them. Whoever asks next need not tell them again."""
        anew = bool(self._epoch) and grant.epoch != self._epoch
        charges = [charge for charge in self.quota.record.charges if charge not in self._inherited]
        if anew:
            for charge in charges:
                charge.lease = ""
        unknown, now = [charge for charge in charges if not charge.lease], self._clock()
        recovered = self._found(grant, forgot=anew)
        return unknown, [(now - charge.at, self._held(charge)) for charge in unknown], recovered

    def _held(self, charge: Charge) -> Sequence[float]:
        """What a charge weighs now: a call that is over holds no slot."""
        if charge.open or self._slots is None:
            return charge.amounts
        return [0.0 if unit == "slot" else n for unit, n in zip(self.limits.units, charge.amounts, strict=True)]

    def _restored(self, charges: Sequence[Charge], leases: Sequence[str]) -> None:
        for charge, lease in zip(charges, leases, strict=True):
            charge.lease, charge.marks = lease, []
            if lease and not charge.open:
                # It may have ended while it was told.
                self._courier.settle(lease, charge.amounts)

    def _found(self, grant: Grant, *, forgot: bool) -> bool:
        """Redis answers. True if that is news."""
        recovered = self._outage.over(self._clock(), forgot=forgot, window=self.limits.window)
        if recovered:
            self.quota.divide(1)
        self._epoch = grant.epoch
        return recovered
