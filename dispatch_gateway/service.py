"""The running gateway: its parts, made from settings and made anew when limits change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dispatch_core.errors import ConfigError, StoreError
from dispatch_core.limit import TokenLimiter
from dispatch_core.ports import Embedder, MeasuredStore
from dispatch_core.spans import Spans
from dispatch_gateway import config
from dispatch_gateway.admission import Account, Admissions, Deployment
from dispatch_gateway.ask import Services
from dispatch_gateway.caches import Caches, embedder_of, store_at
from dispatch_gateway.compression import Compression
from dispatch_gateway.config import ANY_MODEL, Settings
from dispatch_gateway.errors import ApiError
from dispatch_gateway.http import Deadlines
from dispatch_gateway.meters import Meters
from dispatch_gateway.tenants import Door, Tenant
from dispatch_gateway.upstream import Upstreams

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class _Made:
    """A limiter and what it was made of."""

    recipe: tuple[Any, ...]
    limiter: TokenLimiter


class Service:
    """Everything behind the endpoints. An ``embedder`` goes before the one that the settings name. Raises
    `ConfigError` and `MissingExtra` for settings that cannot work."""

    def __init__(self, settings: Settings, *, embedder: Embedder | None = None) -> None:
        self.settings = settings
        self.started = time.time()
        self.draining = False
        self.under_way = 0
        self.upstreams = Upstreams(settings.timeouts)
        self.admissions = Admissions()
        self.deadlines = Deadlines(settings.timeouts.total)
        self._limiters: dict[str, _Made] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._apply(settings)
        embedder = embedder or embedder_of(settings)
        self.caches = Caches.of(settings.cache, self.admissions, embedder)
        self.compression = Compression(settings.compression, embedder)
        shared = settings.quota.redis
        # Only to ask whether it is there.
        self._shared = None if shared is None else store_at("quota.redis", shared)
        self.meters = Meters(self.utilization, lambda: self.caches.failing, lambda: self.compression.paused)
        spans = Spans() if settings.tracing else None
        self.services = Services(self.settings, self.upstreams, self.admissions, self.caches, self.meters, spans)

    def reload(self, settings: Settings) -> list[str]:
        """Take over keys, models and limits; returns the names of those settings that need a new start.

        Nobody knows the new limiters' past: for a minute, what is changed holds as it was, too.
        """
        fixed = ("listen", "cache", "quota", "timeouts", "auth", "tracing", "compression")
        kept = {name: getattr(self.settings, name) for name in fixed}
        changed = [name for name in fixed if getattr(settings, name) != kept[name]]
        before = self._limiters
        self._apply(settings.model_copy(update=kept))
        self.services = replace(self.services, settings=self.settings)
        limited: list[tuple[str, Deployment | Account]] = [
            (one.name, one) for pool in self.pools.values() for one in pool
        ]
        limited += [(f"key:{name}", account) for name, account in self._accounts.items()]
        for name, one in limited:
            old = before.get(name)
            if old is not None and one.limiters and one.limiters[0] is not old.limiter:
                one.limiters = (*one.limiters, old.limiter)
                asyncio.get_running_loop().call_later(_MINUTE, _forget_old, one)
        return changed

    def pool(self, model: str, provider: str, tenant: Tenant) -> Sequence[Deployment]:
        """The deployments that serve a model in a wire format. Raises `ApiError` 404: what a tenant may not use is
        not there."""
        pool = self.pools.get(model) or self.pools.get(ANY_MODEL, ())
        fitting = [one for one in pool if one.settings.provider == provider] if tenant.may_use(model) else []
        if not fitting:
            message = f"The model '{model[:100]}' does not exist or you do not have access to it."
            raise ApiError(404, message, param="model", code="model_not_found")
        return fitting

    def account(self, tenant: Tenant) -> Account:
        return self._accounts.get(tenant.name, _NO_ACCOUNT)

    def utilization(self) -> Iterator[tuple[str, str, float]]:
        """The used share of each limit."""
        for name, made in self._limiters.items():
            for limit, gauge in made.limiter.stats().gauges.items():
                yield name, limit, gauge.used / gauge.limit

    def snapshot(self) -> dict[str, Any]:
        """What the status page and ``dispatcher top`` show: counters since the start, and the limits right now."""
        meters = self.meters
        limits = [
            {"owner": name, "limit": limit, "size": gauge.limit, "used": gauge.used, "granted": gauge.share}
            for name, made in self._limiters.items()
            for limit, gauge in made.limiter.stats().gauges.items()
        ]
        store = self.caches.store
        memory = store.memory() if isinstance(store, MeasuredStore) else None
        return {
            "now": time.time(),
            "started": self.started,
            "state": "draining" if self.draining else "ok",
            "cache": "off" if store is None else "paused" if self.caches.failing else "ok",
            "compression": "off" if not self.compression.enabled else "paused" if self.compression.paused else "ok",
            "semantic": self.caches.embedder is not None,
            "entries": None if memory is None else memory.entries,
            "outcomes": dict(meters.counts),
            "tokens": dict(meters.amounts),
            "refusals": meters.refusals,
            "under_way": self.under_way,
            "waiting": self.waiting(),
            "limits": limits,
        }

    def waiting(self) -> int:
        """How many calls stand in line for a quota."""
        return sum(made.limiter.stats().waiting for made in self._limiters.values())

    async def degraded(self, patience: float) -> bool:
        """Whether calls go on without the cache, or without the other replicas, because what keeps them does not
        answer within so many seconds."""
        try:
            async with asyncio.timeout(patience):
                for store in (self.caches.store, self._shared):
                    if store is not None:
                        await store.aget("health", now=time.time())
        except (StoreError, TimeoutError):
            return True
        return False

    async def idle(self, patience: float) -> bool:
        """Wait for the requests under way; False if some are left after so many seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def enter(self) -> None:
        self.under_way += 1
        self._idle.clear()

    def leave(self) -> None:
        self.under_way -= 1
        if not self.under_way:
            self._idle.set()

    async def open(self) -> None:
        await self.upstreams.open()
        await self.caches.warm()

    async def close(self) -> None:
        """Finish the writes and close all connections."""
        await self.upstreams.close()
        await self.caches.close()
        self.compression.close()
        if self._shared is not None:
            await self._shared.aclose()
        for made in self._limiters.values():
            await made.limiter.aclose()

    def _apply(self, settings: Settings) -> None:
        """Make what is new, keep what is as it was."""
        weights = {key.name: key.weight for key in settings.keys}
        limiters: dict[str, _Made] = {}
        pools: dict[str, list[Deployment]] = {}
        for model, listed in settings.models.items():
            pools[model] = [
                self._deployment(one, one.name or f"{model}/{index}", weights, limiters)
                for index, one in enumerate(listed)
            ]
        accounts = {}
        for key in settings.keys:
            name = f"key:{key.name}"
            budget = None
            if key.budget_per_day is not None:
                money = config.Limits(tpd=key.budget_per_day * 1_000_000)
                budget = self._limiter(f"{name}:budget", money, {}, limiters, own_estimates=True)
            limited = (self._limiter(name, key.limits, {}, limiters),) if key.limits.any else ()
            accounts[key.name] = Account(limited, budget)
        self.settings, self.door = settings, Door(settings)
        self.pools: Mapping[str, Sequence[Deployment]] = pools
        self._accounts: Mapping[str, Account] = accounts
        self._limiters = limiters

    def _deployment(
        self, settings: config.Deployment, name: str, weights: Mapping[str, float], limiters: dict[str, _Made]
    ) -> Deployment:
        limited = (self._limiter(name, settings.limits, weights, limiters),) if settings.limits.any else ()
        return Deployment(name, settings, limited)

    def _limiter(
        self,
        name: str,
        limits: config.Limits,
        weights: Mapping[str, float],
        limiters: dict[str, _Made],
        *,
        own_estimates: bool = False,
    ) -> TokenLimiter:
        """The limiter of this name, the very same if it was made of the same. Raises `ConfigError`."""
        recipe = (limits, tuple(weights.items()))
        if name in limiters and limiters[name].recipe != recipe:
            raise ConfigError(f"models: two deployments share the name {name}, and so their limits, which differ")
        known = limiters.get(name) or self._limiters.get(name)
        if known is None or known.recipe != recipe:
            shared = self.settings.quota
            given = limits.model_dump(exclude_none=True)
            if shared.redis is not None:
                given |= {"redis": shared.redis, "name": f"dispatch-gateway:{name}", "replicas": shared.replicas}
            if not own_estimates:
                given["estimator"] = self.admissions.estimator
            try:
                known = _Made(recipe, TokenLimiter(**given, weights=weights))
            except ConfigError as error:
                raise ConfigError(f"limits of {name}: {error}") from error
        limiters[name] = known
        return known.limiter


_NO_ACCOUNT = Account()


def _forget_old(limited: Deployment | Account) -> None:
    limited.limiters = limited.limiters[:1]
