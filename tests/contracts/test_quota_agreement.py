"""The script in Redis and the gauges in memory are one arithmetic: the same steps, the same answers."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from dispatch_core._flow import run
from dispatch_core.limit.bucket import BucketGauge
from dispatch_core.limit.day import DAY, DayGauge
from dispatch_core.limit.quota import Charge, Gauge, Quota
from dispatch_core.limit.redis import Plan, SharedQuota
from dispatch_core.limit.slots import SlotGauge
from dispatch_core.limit.window import Log, WindowGauge

LEASE = 20.0
STEPS, WALKS = 260, 24
STEPPED_BACK = 10.0
_TINY = 1e-9


@dataclass
class Held:
    """One charge of the reference: ``slot`` until its slot is free."""

    charge: Charge
    expiry: float
    slot: bool


@dataclass
class Reference:
    """How a quota is driven by the server's clock, in memory: grants lie in the future, slots are leased."""

    gauges: Sequence[Gauge]
    log: Log
    now: float = -math.inf
    gate: float = -math.inf
    held: list[Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.quota = Quota(self.gauges, self.log)
        self.slot = next((i for i, gauge in enumerate(self.gauges) if isinstance(gauge, SlotGauge)), None)

    def reserve(self, amounts: Sequence[float], horizon: float, time: float) -> tuple[Held | None, float]:
        now = self.now = max(time, self.now)
        self._free(time)
        wait = max(0.0, self.gate - now, self.quota.wait(amounts, now))
        if wait == math.inf:
            return None, self._hint(amounts, now, time)
        if now + wait - time > horizon:
            return None, now + wait - time
        charge = Charge(list(amounts))
        self.quota.charge(charge, now + wait)
        self.now = now + wait
        held = Held(charge, self.now + LEASE, self.slot is not None and amounts[self.slot] > 0)
        self.held.append(held)
        return held, self.now - time

    def settle(self, held: Held, amounts: Sequence[float]) -> None:
        charge = held.charge
        if not charge.open:
            return
        charge.open = False
        for index, gauge in enumerate(self.gauges):
            if index != self.slot:
                gauge.give(charge, charge.amounts[index], amounts[index])
        self._leave(held)
        charge.amounts = amounts

    def close_gate(self, seconds: float, time: float) -> None:
        self.gate = max(self.gate, time + seconds)

    def _free(self, time: float) -> None:
        for held in self.held:
            if held.expiry <= time + _TINY:
                self._leave(held)

    def _leave(self, held: Held) -> None:
        if held.slot and self.slot is not None:
            held.slot = False
            self.gauges[self.slot].give(held.charge, 1.0, 0.0)

    def _hint(self, amounts: Sequence[float], now: float, time: float) -> float:
        first = min((held.expiry for held in self.held if held.slot), default=math.inf)
        others = [gauge.wait(a, now) for gauge, a in zip(self.gauges, amounts, strict=True)]
        wait = max(0.0, self.gate - now, *(seconds for seconds in others if seconds < math.inf))
        return max(now + wait - time, 0.0, min(1.0, first - time))


@dataclass
class Both:
    """A reference and a shared quota that are asked the same."""

    reference: Reference
    shared: SharedQuota
    plans: tuple[Plan, ...]
    steps: int = 0
    leases: list[tuple[Held, str]] = field(default_factory=list)

    def reserve(self, amounts: Sequence[float], horizon: float, time: float) -> bool:
        self.shared._time = b"%.17g" % time
        held, wait = self.reference.reserve(amounts, horizon, time)
        grant = run(self.shared.reserve(self.plans, amounts, horizon=horizon))
        self.steps += 1
        assert (grant.lease is None) == (held is None), f"step {self.steps}: {grant} against a wait of {wait}"
        assert grant.wait == pytest.approx(wait, abs=1e-6), f"step {self.steps}"
        marks = [g.level if isinstance(g, BucketGauge) else g.used for g in self.reference.gauges]
        assert grant.marks == pytest.approx(marks, abs=1e-6), f"step {self.steps}"
        if held is not None and grant.lease is not None:
            self.leases.append((held, grant.lease))
        return held is not None

    def settle(self, which: int, amounts: Sequence[float]) -> None:
        held, lease = self.leases[which]
        self.reference.settle(held, amounts)
        run(self.shared.settle([(lease, amounts)]))
        self.steps += 1

    def close_gate(self, seconds: float, time: float) -> None:
        self.shared._time = b"%.17g" % time
        self.reference.close_gate(seconds, time)
        run(self.shared.close_gate(seconds))
        self.steps += 1


def _gauge(kind: str, index: int, log: Log, chance: random.Random) -> tuple[Gauge, Plan]:
    limit = float(chance.choice([3, 10, 40]))
    if kind == "window":
        burst = chance.choice([1.0, limit / 4, limit])
        window = WindowGauge("w", limit, window=10.0, log=log, burst=burst, index=index)
        return window, Plan("window", limit, window.rate, burst, log.span)
    if kind == "bucket":
        bucket = BucketGauge("b", limit, window=10.0, burst=limit / 2, margin=0.0)
        return bucket, Plan("bucket", limit / 2, bucket.rate, limit / 2)
    if kind == "slots":
        return SlotGauge("s", 4.0), Plan("slots", 4.0)
    limit *= 20
    return DayGauge("d", limit, index=index), Plan("day", limit, span=DAY)


def _both(url: str, kinds: Sequence[str], chance: random.Random) -> Both:
    log = Log(10.5)
    made = [_gauge(kind, index, log, chance) for index, kind in enumerate(kinds)]
    shared = SharedQuota(url, name=uuid.uuid4().hex, lease=LEASE, timeout=20)
    return Both(Reference([gauge for gauge, _ in made], log), shared, tuple(plan for _, plan in made))


def _kinds(chance: random.Random) -> list[str]:
    kinds = [kind for kind in ("window", "window", "bucket", "slots", "day") if chance.random() < 0.5]
    return kinds or ["window"]


def _amounts(kinds: Sequence[str], chance: random.Random) -> list[float]:
    whole, part = float(chance.randint(0, 5)), chance.random() * 4
    return [1.0 if kind == "slots" else chance.choice([1.0, whole, part]) for kind in kinds]


def _boundary(both: Both, chance: random.Random, time: float) -> float:
    """Exactly when a charge leaves its window, or its lease ends."""
    ends = [h.charge.at + plan.span for h, _ in both.leases[-20:] for plan in both.plans if plan.kind == "window"]
    ends += [held.expiry for held, _ in both.leases[-20:]]
    later = [end for end in ends if end >= time]
    return chance.choice(later) if later else time


def _moved(both: Both, chance: random.Random, time: float) -> float:
    kind = chance.random()
    if kind < 0.70:
        return time + chance.random() * 0.8
    if kind < 0.80:
        return _boundary(both, chance, time)
    if kind < 0.90:
        return max(1.0, time - chance.random() * 4.0)
    if kind < 0.97:
        return time + chance.random() * 15
    return time + chance.choice([60.0, 300.0, 4_000.0, 40_000.0, 90_000.0])


@pytest.mark.parametrize("seed", range(WALKS))
def test_redis_and_memory_agree_at_every_step(redis_like_url, seed):
    chance = random.Random(seed)
    kinds = _kinds(chance)
    both = _both(redis_like_url, kinds, chance)
    # Never as far back as a clock that was set, which the server's side holds for broken.
    time = latest = 1_000.0 + seed
    granted = 0
    while both.steps < STEPS:
        time = max(_moved(both, chance, time), latest - STEPPED_BACK / 2)
        latest = max(latest, time)
        what = chance.random()
        if what < 0.6 or not both.leases:
            granted += both.reserve(_amounts(kinds, chance), chance.choice([0.0, 0.5, 5.0, 60.0]), time)
        elif what < 0.97:
            which = chance.randrange(max(0, len(both.leases) - 12), len(both.leases))
            before = both.leases[which][0].charge
            # Nobody waits for longer than this to settle, where no window keeps the charge.
            if before.at + LEASE > both.reference.now + 1.0:
                both.settle(which, chance.choice([before.amounts, _amounts(kinds, chance), [0.0] * len(kinds)]))
        else:
            both.close_gate(chance.random() * 3, time)
    assert granted > 5
    both.shared.close()


def test_there_are_enough_steps_to_mean_something():
    assert STEPS * WALKS >= 5_000


@pytest.mark.parametrize("size", [1.0, 30.0, 40.0, 41.0, 85.0])
def test_a_full_window_makes_wait_for_what_it_holds(redis_like_url, size):
    both = _both(redis_like_url, [], random.Random(1))
    log = Log(10.5)
    gauge = WindowGauge("w", 40.0, window=10.0, log=log, burst=40.0, index=0)
    both.reference, both.plans = Reference([gauge], log), (Plan("window", 40.0, gauge.rate, 40.0, log.span),)
    for number in range(300):
        both.reserve([0.5], 0.0, 100.0 + number * 0.01)
    both.reserve([size], 0.0, 103.0)
    both.reserve([size], 1e6, 103.0)
    both.reserve([1.0], math.inf, 103.0)
    both.shared.close()


def test_the_bins_of_a_day_agree_when_one_by_one_they_leave(redis_like_url):
    both = _both(redis_like_url, [], random.Random(1))
    both.reference, both.plans = (
        Reference([DayGauge("d", 500.0, index=0)], Log(60.0)),
        (Plan("day", 500.0, span=DAY),),
    )
    for number in range(280):
        both.reserve([1.0 + number % 3], 0.0, 1_000.0 + number * 310.0)
        both.settle(len(both.leases) - 1, [number % 4])
    for number in range(280):
        both.reserve([2.0], 1e9, 1_000.0 + 280 * 310.0 + number * 310.0)
    both.shared.close()
