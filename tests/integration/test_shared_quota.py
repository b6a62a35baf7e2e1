"""One quota for many processes, on real servers."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterator

import pytest
import redis

from dispatch_core import ConfigError, StoreError
from dispatch_core._flow import arun, run
from dispatch_core.limit.redis import Plan, SharedQuota

WINDOW = (Plan("window", 10.0, rate=1.0, burst=10.0, span=10.0),)
SLOTS = (Plan("slots", 2.0),)
START = 1_000.0
Opened = Callable[..., SharedQuota]


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def opened(redis_like_url: str, name: str) -> Iterator[Opened]:
    """Opens quotas of one name, as several processes do; they are closed in the end."""
    quotas: list[SharedQuota] = []

    def open_one(**settings) -> SharedQuota:
        quotas.append(SharedQuota(redis_like_url, **{"name": name, "timeout": 20.0, **settings}))
        _at(START, quotas[-1])
        return quotas[-1]

    yield open_one
    for quota in quotas:
        quota.close()


def _at(time: float, *quotas: SharedQuota) -> None:
    for quota in quotas:
        quota._time = b"%.17g" % time


def _ask(quota: SharedQuota, amount: float = 1.0, plans=WINDOW, horizon: float = 0.0):
    return run(quota.reserve(plans, [amount], horizon=horizon))


def test_two_processes_share_one_quota(opened):
    one, other = opened(), opened()
    assert _ask(one, 6.0).lease
    refused = _ask(other, 6.0)
    assert refused.lease is None
    assert refused.wait == pytest.approx(10.0)
    assert _ask(other, 4.0).marks == (10.0,)


def test_quotas_of_other_names_know_nothing_of_each_other(opened):
    assert _ask(opened(), 10.0).lease
    assert _ask(opened(name="another"), 10.0).lease


def test_grants_in_the_future_keep_the_order_in_which_they_were_asked_for(opened):
    one, other = opened(), opened()
    _ask(one, 10.0)
    waits = [_ask(quota, 3.0, horizon=60.0).wait for quota in (one, other, one)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(10.0)
    # A small call cannot overtake those that were granted before it.
    assert _ask(other, 0.1, horizon=60.0).wait >= waits[-1]


def test_a_refusal_leaves_no_trace(opened):
    one = opened()
    _ask(one, 10.0)
    before = _ask(one, 5.0)
    assert [_ask(one, 5.0) for _ in range(3)] == [before] * 3


def test_what_one_settles_is_room_for_the_other(opened):
    one, other = opened(), opened()
    lease = _ask(one, 10.0).lease
    assert _ask(other, 8.0).lease is None
    run(one.settle([(lease, [2.0])]))
    assert _ask(other, 8.0).marks == (10.0,)


def test_to_settle_twice_is_to_settle_once_and_the_unknown_is_ignored(opened):
    one, other = opened(), opened()
    lease = _ask(one, 10.0).lease
    for amount in (5.0, 0.0, 9.0):
        run(other.settle([(lease, [amount]), (lease, [0.0]), ("nonsense", [1.0]), (lease[:24] + "77", [1.0])]))
    assert _ask(one).marks == (6.0,)


def test_a_charge_that_nobody_settles_leaves_with_its_window(opened):
    one, other = opened(), opened()
    lease = _ask(one, 10.0).lease
    _at(START + 9.999, other)
    assert _ask(other, 10.0).lease is None
    _at(START + 10.0, other)
    assert _ask(other, 10.0).marks == (10.0,)
    run(one.settle([(lease, [1.0])]))
    assert _ask(other, 1.0).lease is None


def test_entries_of_the_past_do_not_pile_up(opened, redis_like_url, name):
    one = opened(lease=5.0)
    for number in range(300):
        _at(START + number * 11.0, one)
        grant = _ask(one, 10.0)
        if number % 2:
            run(one.settle([(grant.lease, [1.0])]))
    with redis.Redis.from_url(redis_like_url) as client:
        assert client.hlen(one._keys[0]) < 10


def test_a_gate_holds_everybody_and_the_longer_one_stays(opened):
    one, other = opened(), opened()
    run(one.close_gate(5.0))
    run(other.close_gate(2.0))
    assert _ask(other).wait == pytest.approx(5.0)
    _at(START + 5.0, other)
    assert _ask(other).lease


def test_slots_are_freed_when_they_are_settled_or_their_process_is_dead(opened):
    one, other = opened(lease=3.0), opened(lease=3.0)
    first, _ = _ask(one, plans=SLOTS), _ask(one, plans=SLOTS)
    refused = _ask(other, plans=SLOTS, horizon=math.inf)
    assert (refused.lease, refused.wait, refused.marks) == (None, 1.0, (2.0,))
    run(one.settle([(first.lease, [1.0])]))
    assert _ask(other, plans=SLOTS).lease
    _at(START + 2.5, other)
    assert _ask(other, plans=SLOTS).wait == pytest.approx(0.5)
    _at(START + 3.0, other)
    assert _ask(other, plans=SLOTS).lease


def test_a_living_process_keeps_its_slots(opened):
    one, other = opened(lease=3.0), opened(lease=3.0)
    _ask(one, plans=SLOTS), _ask(one, plans=SLOTS)
    _at(START + 2.0, one)
    run(one.renew())
    _at(START + 4.9, other)
    assert _ask(other, plans=SLOTS).lease is None
    _at(START + 5.0, other)
    assert _ask(other, plans=SLOTS).lease


def test_a_clock_that_was_set_back_mints_no_credit_and_blocks_nobody_for_long(opened):
    one = opened()
    _ask(one, 10.0)
    _at(START - 5_000.0, one)
    assert _ask(one, 1.0).wait == pytest.approx(10.0)
    _at(START - 5_000.0 + 10.0, one)
    assert _ask(one, 10.0).lease


def test_every_process_is_counted_once(opened):
    quotas = [opened() for _ in range(3)]
    assert [_ask(quota).replicas for quota in quotas] == [1, 2, 3]
    for quota in quotas:
        quota._beat_due = -math.inf
    _at(START + 120.0, quotas[0])
    assert _ask(quotas[0]).replicas == 1


@pytest.mark.parametrize("name", ["{a}{b}", "}{", "{}", "a b\r\n", "*", "\ud800"])
def test_keys_have_one_hash_tag_and_an_end_whatever_the_name(opened, redis_like_url, name):
    plans = (*WINDOW, *SLOTS, Plan("day", 100.0, span=86_400.0), Plan("bucket", 10.0, rate=1.0, burst=10.0))
    one = opened(name=name)
    run(one.reserve(plans, [1.0] * 4, horizon=0.0))
    with redis.Redis.from_url(redis_like_url) as client:
        keys = client.keys()
        assert len(keys) == 3
        assert len({key[key.index(b"{") : key.index(b"}") + 1] for key in keys}) == 1
        assert all(client.ttl(key) > 0 for key in keys)
        assert client.ttl(one._keys[0]) > 86_400


def test_a_lost_state_is_a_new_epoch_without_a_burst_and_is_restored(own_server):
    one, other = (SharedQuota(own_server.url, name="lost", timeout=20) for _ in range(2))
    _at(START, one, other)
    before = [_ask(one, 4.0), _ask(other, 3.0)]
    own_server.stop()
    with pytest.raises(StoreError):
        _ask(one)
    own_server.start()
    _at(START + 2.0, one, other)
    refused = _ask(one, 1.0)
    assert refused.epoch != before[0].epoch
    assert refused.lease is None
    assert refused.wait == pytest.approx(1.0)
    [lease, gone] = run(one.restore(WINDOW, [(2.0, [4.0]), (11.0, [5.0])]))
    [theirs] = run(other.restore(WINDOW, [(1.0, [3.0])]))
    assert gone == ""
    run(one.settle([(before[0].lease, [0.0])]))
    _at(START + 5.0, one, other)
    assert _ask(other, 2.0).marks == (9.0,)
    run(one.settle([(lease, [1.0])]))
    run(one.settle([(theirs, [0.0])]))
    _at(START + 5.5, one)
    assert _ask(one, 0.5).marks == (3.5,)
    one.close()
    other.close()


def test_other_kinds_of_limits_under_the_same_name_are_a_mistake(opened):
    _ask(opened())
    with pytest.raises(ConfigError, match="other kinds"):
        _ask(opened(), plans=SLOTS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_bad_numbers_are_refused_before_anything_is_sent(bad):
    quota = SharedQuota("redis://127.0.0.1:1", name="never asked")
    flows = [
        lambda: quota.reserve(WINDOW, [bad], horizon=0.0),
        lambda: quota.reserve((Plan("window", bad, 1.0, 1.0, 1.0),), [1.0], horizon=0.0),
        lambda: quota.reserve(WINDOW, [1.0], horizon=math.nan),
        lambda: quota.settle([("lease", [bad])]),
        lambda: quota.close_gate(bad),
        lambda: quota.restore(WINDOW, [(1.0, [bad])]),
        lambda: quota.restore(WINDOW, [(math.nan, [1.0])]),
        lambda: quota.reserve(WINDOW, [1.0, 2.0], horizon=0.0),
        lambda: quota.reserve(SLOTS, [2.0], horizon=0.0),
        lambda: quota.reserve((), [], horizon=0.0),
    ]
    for flow in flows:
        with pytest.raises(ConfigError):
            run(flow())


@pytest.mark.parametrize("settings", [{"name": ""}, {"name": None}, {"lease": 0.0}, {"lease": math.inf}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        SharedQuota("redis://127.0.0.1:1", **{"name": "a", **settings})


def test_one_quota_serves_two_event_loops_and_a_thread(opened):
    one = opened()

    async def ask() -> tuple[float, ...]:
        grant = await arun(one.reserve(WINDOW, [1.0], horizon=0.0))
        await one.aclose()
        return grant.marks

    marks = [asyncio.run(ask()), asyncio.run(ask()), _ask(one).marks]
    assert marks == [(1.0,), (2.0,), (3.0,)]
