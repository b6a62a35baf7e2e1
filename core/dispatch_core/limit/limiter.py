"""The token limiter: what callers see of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from dispatch_core import _html
from dispatch_core._flow import arun, run
from dispatch_core.errors import ConfigError, LimitExceeded
from dispatch_core.limit.count import TokenEstimator
from dispatch_core.limit.desk import Desk, Rules
from dispatch_core.limit.headers import Reading, readings
from dispatch_core.limit.limits import Limits
from dispatch_core.limit.profile import Profile, profile_named
from dispatch_core.limit.reservation import QuotaReservation
from dispatch_core.limit.verdict import Refusal, Verdict, verdict_of
from dispatch_core.ports import Reservation
from dispatch_core.types import Cost, Feedback

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_AGING = 30.0
_NEVER = -math.inf
_REPLICAS = 4


@dataclass(frozen=True, slots=True)
class GaugeStats:
    """One limit right now: what it allows, what is used of it, and the share of it that the provider was seen to
    grant."""

    limit: float
    used: float
    share: float


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A snapshot: calls admitted, refused here and throttled by the provider so far; waiting and open right now."""

    admitted: int
    rejected: int
    throttled: int
    waiting: int
    open: int
    requests_used: float
    tokens_used: float
    gauges: Mapping[str, GaugeStats]

    def _repr_html_(self) -> str:
        names = ("admitted", "rejected", "throttled", "waiting", "open")
        calls = _html.facts({name: getattr(self, name) for name in names})
        # A share below 1: the provider was seen to grant less than we were told.
        rows = [(name, gauge.used, gauge.limit, f"{gauge.share:.0%}") for name, gauge in self.gauges.items()]
        return calls + _html.listing(("quota", "used", "of", "granted"), rows)


class TokenLimiter:
    """Admits calls within a provider's limits, first come, first served.

    Limits, any subset: ``rpm`` requests, ``tpm`` tokens, ``itpm`` input and ``otpm`` output tokens per minute,
    ``rpd`` requests and ``tpd`` tokens per day, ``concurrency`` calls at once (fewer while the provider is slow). The
    provider may count over a shorter ``window`` (in seconds): the limits per minute scale with it. ``profile`` says
    how it counts: "openai", "anthropic", "azure", "deepseek", "gemini", "bucket", or "window", which is safe towards
    any of them. ``burst`` is how many seconds' worth of quota may be spent at once after a quiet time.

    A call that does not fit waits; it is refused with `LimitExceeded` when its turn would come after ``timeout`` (or
    ``max_wait``) seconds or when ``max_queue`` calls wait already, and with `RequestTooLarge` when it could never
    fit. Of those who wait, the lower ``priority`` goes first; one step is worth ``aging`` seconds of waiting. Within
    a priority the ``key`` of every tenant gets a share as its ``weights`` say, 1 by default. ``estimator`` counts the
    tokens of prompts. ``clock`` returns monotonic seconds.

    With ``redis``, a URL or a client, all processes that give the same ``name`` and limits share one quota; among
    them first come, first served is approximate. While Redis cannot be reached each keeps to its part of the limits:
    one of as many as there were lately or, before anybody was seen, one of ``replicas``.

    Use it as ``with limiter.reserve("prompt", max_tokens=100) as r: ...; r.settle(usage)`` or ``async with``.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        tpm: float | None = None,
        itpm: float | None = None,
        otpm: float | None = None,
        rpd: float | None = None,
        tpd: float | None = None,
        concurrency: float | None = None,
        profile: str | Profile = "window",
        window: float = 60.0,
        burst: float | Literal["auto"] = "auto",
        max_queue: int | None = None,
        max_wait: float | None = None,
        aging: float = _AGING,
        weights: Mapping[str, float] | None = None,
        estimator: TokenEstimator | None = None,
        redis: str | redis.Redis | None = None,
        async_redis: redis.asyncio.Redis | None = None,
        name: str = "",
        replicas: int = _REPLICAS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        how = profile_named(profile)
        if redis is not None and how.counting != "window":
            # Headers reach one process only: a quota that several share counts what it knows for itself.
            how = replace(how, counting="window")
        per_minute = {"rpm": rpm, "tpm": tpm, "itpm": itpm, "otpm": otpm}
        others = {"rpd": rpd, "tpd": tpd, "concurrency": concurrency}
        self.limits = Limits(profile=how, window=window, burst=burst, **per_minute, **others)
        self._estimator = estimator or TokenEstimator()
        rules = _rules(max_queue=max_queue, max_wait=max_wait, aging=aging, weights=weights or {}, clock=clock)
        self._desk: Desk
        if redis is None:
            self._desk = Desk(self.limits, rules, self._estimator)
        else:
            from dispatch_core.limit.shared import SharedDesk

            self._desk = SharedDesk(
                self.limits,
                rules,
                self._estimator,
                server=redis,
                async_server=async_redis,
                name=name,
                replicas=replicas,
            )
        # What every call passes through is called where it is, not from here.
        self.enter_at_once = self._desk.enter_at_once
        self.settle = self._desk.settle

    # What callers use

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
        priority: float = 0,
        key: str = "",
    ) -> QuotaReservation:
        """A context manager, for ``with`` and ``async with``, that holds a place in the quota.

        ``prompt`` is its text, its number of tokens, or a `Cost`; ``timeout`` is in seconds, 0 means now or never.
        """
        if isinstance(prompt, Cost):
            cost = prompt
        elif isinstance(prompt, str):
            cost = self.estimate(prompt, max_tokens=max_tokens, model=model)
        elif isinstance(prompt, int) and not isinstance(prompt, bool):
            cost = Cost(prompt, max_tokens or 0, model)
        else:
            raise ConfigError(f"a prompt is its text, its number of tokens or a Cost, got {type(prompt).__name__}")
        if timeout is None and priority == 0 and key == "":
            return QuotaReservation(self, cost, self.limits.charge(cost, self._estimator))
        _check(timeout, priority, key)
        charge = self.limits.charge(cost, self._estimator)
        return QuotaReservation(self, cost, charge, timeout=timeout, priority=priority, key=key)

    def try_reserve(
        self,
        prompt: str | int | Cost,
        *,
        max_tokens: int | None = None,
        model: str = "",
        priority: float = 0,
        key: str = "",
    ) -> QuotaReservation | None:
        """A place in the quota if there is one right now, else None. Never waits; settle or cancel what you get."""
        held = self.reserve(prompt, max_tokens=max_tokens, model=model, timeout=0.0, priority=priority, key=key)
        try:
            if not self.enter_at_once(held.charge):
                self.enter(held)
        except LimitExceeded:
            return None
        return held

    def acquire(
        self, cost: Cost, *, timeout: float | None = None, priority: float = 0, key: str = ""
    ) -> QuotaReservation:
        """Wait for a turn. Raises `LimitExceeded` or `RequestTooLarge`."""
        held = self.reserve(cost, timeout=timeout, priority=priority, key=key)
        if not self.enter_at_once(held.charge):
            self.enter(held)
        return held

    async def aacquire(
        self, cost: Cost, *, timeout: float | None = None, priority: float = 0, key: str = ""
    ) -> QuotaReservation:
        held = self.reserve(cost, timeout=timeout, priority=priority, key=key)
        if not self.enter_at_once(held.charge):
            await self.aenter(held)
        return held

    def eta(
        self, prompt: str | int | Cost, *, max_tokens: int | None = None, priority: float = 0, key: str = ""
    ) -> float:
        """Seconds that a call made now would wait, as far as can be known."""
        held = self.reserve(prompt, max_tokens=max_tokens, priority=priority, key=key)
        return self._desk.eta(held)

    def throttled(self, status: int, headers: Mapping[str, str] | None = None, body: object = None) -> Verdict | None:
        """A response refused a call that no reservation is known of: None if it did not, else why. After a refusal
        nobody is admitted before the provider wants it, at most a minute later."""
        headers = headers or {}
        verdict = verdict_of(status, headers, body, now=time.time())
        if verdict is not None and verdict.kind is not Refusal.SPENT:
            self.observe(Feedback(429, verdict.retry_after, headers, verdict.dimension))
        return verdict

    def observe(self, feedback: Feedback, reservation: Reservation | None = None) -> None:
        """Slow down after a refusal, and give back what the refused call had reserved."""
        if feedback.refused:
            charge = reservation.charge if isinstance(reservation, QuotaReservation) else None
            self._desk.refuse(charge, feedback, self.readings(feedback.headers))

    def stats(self) -> LimiterStats:
        """What was admitted and refused so far, and how much of each limit is used right now."""
        desk = self._desk
        gauges = {name: GaugeStats(*numbers) for name, numbers in desk.gauges().items()}
        used = {name: gauge.used for name, gauge in gauges.items()}
        return LimiterStats(
            admitted=desk.admitted,
            rejected=desk.rejected,
            throttled=desk.throttled,
            waiting=len(desk.line),
            open=desk.open,
            requests_used=used.get("requests", 0.0),
            tokens_used=used.get("tokens", 0.0),
            gauges=gauges,
        )

    def close(self) -> None:
        """Release the connections to Redis. Later calls are admitted by this process's part of the limits."""
        self._desk.close()

    async def aclose(self) -> None:
        await self._desk.aclose()

    # What reservations use

    def enter(self, held: QuotaReservation, *, again: bool = False) -> None:
        if not self._renewed(held, again=again):
            run(self._desk.queue_up(held))

    async def aenter(self, held: QuotaReservation, *, again: bool = False) -> None:
        if not self._renewed(held, again=again):
            await arun(self._desk.queue_up(held))

    def cancel(self, held: QuotaReservation) -> None:
        self._desk.cancel(held.charge)

    def refused(
        self, held: QuotaReservation, status: int, headers: Mapping[str, str], body: object
    ) -> Verdict | None:
        verdict = verdict_of(status, headers, body, now=time.time())
        if verdict is None or verdict.kind is Refusal.SPENT:
            return None
        self.observe(Feedback(429, verdict.retry_after, headers, verdict.dimension), held)
        return verdict

    def readings(self, headers: Mapping[str, str]) -> Mapping[str, Reading]:
        style = self.limits.profile.headers
        return readings(headers, style, now=time.time()) if style is not None and headers else {}

    def _renewed(self, held: QuotaReservation, *, again: bool) -> bool:
        """True if it was used before, and entered anew at once."""
        if held.charge.at == _NEVER:
            return False
        self._renew(held, again=again)
        return self.enter_at_once(held.charge)

    def _renew(self, held: QuotaReservation, *, again: bool) -> None:
        """Used once more, it gets a charge of its own; after a refusal it goes before all who came later."""
        if held.charge.open:
            self._desk.settle(held, None, None, None)
        if not again:
            held.since = None
        elif held.since is None:
            held.since = held.charge.at
        held.charge = self.limits.charge(held.cost, self._estimator)


def _check(timeout: float | None, priority: float, key: str) -> None:
    if timeout is not None and (not _is_number(timeout) or math.isnan(timeout)):
        raise ConfigError(f"timeout is a number of seconds or None, got {timeout!r}")
    if priority != 0 and not (_is_number(priority) and math.isfinite(priority)):
        raise ConfigError(f"priority is a finite number, the lower the sooner, got {priority!r}")
    if not isinstance(key, str):
        raise ConfigError(f"key is a text, got {key!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rules(
    *,
    max_queue: int | None,
    max_wait: float | None,
    aging: float,
    weights: Mapping[str, float],
    clock: Callable[[], float],
) -> Rules:
    for name, value in (("max_queue", max_queue), ("max_wait", max_wait)):
        if value is not None and not (_is_number(value) and value >= 0):
            raise ConfigError(f"{name} must be a number and not negative, got {value!r}")
    if not (_is_number(aging) and 0 < aging < math.inf):
        raise ConfigError(f"aging must be a positive, finite number of seconds, got {aging!r}")
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights map keys to numbers, got {weights!r}")
    for key, weight in weights.items():
        if not (_is_number(weight) and 0 < weight < math.inf):
            raise ConfigError(f"the weight of {key!r} must be a number, positive and finite, got {weight!r}")
    if not callable(clock):
        raise ConfigError(f"clock is a function that returns seconds, got {clock!r}")
    return Rules(clock=clock, aging=aging, max_queue=max_queue, max_wait=max_wait, weights=dict(weights))
