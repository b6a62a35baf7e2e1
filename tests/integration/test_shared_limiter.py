"""Token limiters that share one quota, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from servers import Server, free_port

from dispatch_core import ConfigError, Cost, LimitExceeded, RequestTooLarge, TokenLimiter, Usage

Opened = Callable[..., TokenLimiter]
PATIENCE = 30.0


class Clock:
    """Real time, which a test may also let pass."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def open_one(name: str) -> Iterator[Opened]:
    """Opens limiters of one name, as several processes do; they are closed in the end."""
    limiters: list[TokenLimiter] = []

    def opened(url: str, **settings: Any) -> TokenLimiter:
        # An hour's burst at once, so that nothing is paced but the window.
        limits = {} if {"rpm", "tpm", "concurrency"} & settings.keys() else {"tpm": 1_000}
        # A busy machine is no outage.
        url = url if "?" in url else f"{url}?socket_timeout={PATIENCE}"
        limiters.append(TokenLimiter(**{"redis": url, "name": name, "burst": 60.0, **limits, **settings}))
        return limiters[-1]

    yield opened
    for limiter in limiters:
        limiter.close()


@pytest.fixture
def opened(redis_like_url: str, open_one: Opened) -> Opened:
    return lambda **settings: open_one(redis_like_url, **settings)


def _desk(limiter: TokenLimiter) -> Any:
    return limiter._desk


def _flushed(*limiters: TokenLimiter) -> None:
    for limiter in limiters:
        assert _desk(limiter).flush(PATIENCE)


def _free(limiter: TokenLimiter, most: int = 2_000) -> int:
    """The tokens that Redis would grant now, found by halving."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            held = limiter.try_reserve(middle)
        except RequestTooLarge:
            held = None
        if held is None:
            high = middle
        else:
            held.cancel()
            _flushed(limiter)
            low = middle
    return low


# One quota


def test_what_one_takes_the_other_lacks(opened):
    one, other = opened(), opened()
    one.acquire(Cost(700))
    assert _free(other) == 300


def test_both_hammering_stay_within_the_limit(opened):
    limiters = [opened(tpm=10_000) for _ in range(2)]

    def hammer(number: int) -> int:
        return sum(limiters[number % 2].try_reserve(37) is not None for _ in range(60))

    with ThreadPoolExecutor(8) as threads:
        admitted = sum(threads.map(hammer, range(8)))
    assert admitted == 10_000 // 37


def test_what_one_settles_is_room_for_the_other(opened):
    one, other = opened(), opened()
    with one.reserve(900) as held:
        assert other.try_reserve(500) is None
        held.settle(Usage(300, 100))
    _flushed(one)
    assert _free(other) == 600


def test_settling_wakes_nobody_elsewhere_but_they_ask_again(opened):
    one, other = opened(), opened()
    held = one.acquire(Cost(1_000))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(other.acquire, Cost(1_000))
        while not other.stats().waiting:
            time.sleep(0)
        held.cancel()
        assert waiting.result(PATIENCE).charge.open


async def test_blocking_and_awaited_calls_share_it(opened):
    one, other = opened(), opened()
    with one.reserve(100) as first:
        async with other.reserve(200) as second:
            assert _free(one) == 700
            second.settle(Usage(50, 0))
        first.settle(Usage(50, 0))
    _flushed(one, other)
    assert _free(other) == 900
    await other.aclose()


def test_threads_and_two_loops_on_one_limiter(opened):
    limiter = opened(tpm=1_000_000, concurrency=8)
    done: list[int] = []

    def blocking(number: int) -> None:
        with limiter.reserve(100) as held:
            held.settle(Usage(60, 0))
        done.append(number)

    async def awaited(number: int) -> None:
        async with limiter.reserve(100) as held:
            held.settle(Usage(60, 0))
        done.append(number)

    async def many(first: int) -> None:
        await asyncio.gather(*map(awaited, range(first, first + 20)))
        await limiter.aclose()

    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(blocking, number) for number in range(40)]
        jobs += [threads.submit(asyncio.run, many(first)) for first in (40, 60)]
        for job in jobs:
            job.result(PATIENCE)
    assert sorted(done) == list(range(80))
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.tokens_used) == (80, 0, 0, 80 * 60)


def test_limits_of_another_shape_do_not_collide_under_one_name(opened):
    before, after = opened(tpm=1_000), opened(tpm=1_000, rpm=100)
    before.acquire(Cost(1_000))
    after.acquire(Cost(1_000))
    assert before.try_reserve(1) is None
    assert after.try_reserve(1) is None


def test_other_names_are_other_quotas(opened):
    opened().acquire(Cost(1_000))
    assert opened(name="another").try_reserve(1_000) is not None


# Now or never, and in which order


def test_now_or_never(opened):
    one, other = opened(), opened()
    one.acquire(Cost(900))
    assert other.try_reserve(101) is None
    with pytest.raises(LimitExceeded) as refused:
        other.acquire(Cost(101), timeout=0)
    assert 1 < refused.value.retry_after < 61
    assert other.stats().rejected == 2
    assert other.try_reserve(100) is not None


def test_a_turn_that_comes_too_late_is_refused_at_once(opened):
    one, other = opened(), opened()
    one.acquire(Cost(1_000))
    with pytest.raises(LimitExceeded, match="too late") as refused:
        other.acquire(Cost(10), timeout=PATIENCE)
    assert refused.value.retry_after > PATIENCE


async def test_who_has_no_time_to_wait_is_not_refused_while_there_is_room(opened):
    """They ask one after the other; that must not look like a queue."""
    limiter = opened()
    held = await asyncio.gather(*(limiter.aacquire(Cost(20), timeout=0) for _ in range(50)))
    assert len(held) == 50
    with pytest.raises(LimitExceeded):
        await limiter.aacquire(Cost(20), timeout=0)
    await limiter.aclose()


async def test_a_full_queue_refuses(opened):
    limiter = opened(max_queue=2)
    await limiter.aacquire(Cost(1_000))
    waiting = [asyncio.create_task(limiter.aacquire(Cost(10))) for _ in range(2)]
    while _desk(limiter)._flowing:
        await asyncio.sleep(0.01)
    with pytest.raises(LimitExceeded, match="full"):
        await limiter.aacquire(Cost(10))
    await _cancelled(*waiting)
    await limiter.aclose()


async def test_the_lower_priority_goes_first_and_keys_take_turns(opened):
    limiter = opened(concurrency=1)
    order: list[str] = []

    async def call(who: str, **how: Any) -> None:
        async with limiter.reserve(1, **how):
            order.append(who)

    async with limiter.reserve(1):
        tasks = [asyncio.create_task(call(f"late {key}", key=key)) for key in ("a", "a", "a", "b")]
        tasks.append(asyncio.create_task(call("soon", priority=-1)))
        while limiter.stats().waiting < 5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["soon", "late a", "late b", "late a", "late a"]
    await limiter.aclose()


def test_a_refusal_seen_by_one_closes_the_gate_for_the_other(opened):
    one, other = opened(), opened()
    with one.reserve(10) as held:
        assert held.throttled(429, {"retry-after": "40"})
    # Redis may hear of it a moment later, this process must not.
    with pytest.raises(LimitExceeded) as refused:
        one.acquire(Cost(1), timeout=5)
    assert 30 < refused.value.retry_after < 45
    _flushed(one)
    with pytest.raises(LimitExceeded) as refused:
        other.acquire(Cost(1), timeout=5)
    assert 30 < refused.value.retry_after < 45


def test_a_call_larger_than_the_limit_is_refused_before_anybody_is_asked(open_one):
    limiter = open_one(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(RequestTooLarge):
        limiter.acquire(Cost(1_001))


# Cancellation


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _await_by_await(work: Coroutine[Any, Any, Any], stop: int) -> bool:
    """Drive by hand, and cancel at the await number ``stop``. False if it ended before."""
    for number in range(10_000):
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            end.value.cancel()
            return False
        if number == stop:
            with pytest.raises(asyncio.CancelledError):
                work.throw(asyncio.CancelledError())
            return True
        if waits_for is None:
            await asyncio.sleep(0)
        else:
            waits_for._asyncio_future_blocking = False
            await asyncio.wait([waits_for])
    raise AssertionError("it never ends")


async def _quiet() -> None:
    """Let end what a cancelled call left behind."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@pytest.mark.parametrize("state", ["room", "a wait", "a restart"])
async def test_a_cancellation_at_any_await_leaves_nothing_charged(opened, redis_like_url, state):
    stop, cancelled = 0, True
    while cancelled:
        limiter, other = (opened(name=f"{state} {stop}", concurrency=9, tpm=60_000) for _ in range(2))
        limiter.acquire(Cost(500)).settle(Usage(400, 0))
        held = other.acquire(Cost(59_600)) if state == "a wait" else None
        _flushed(limiter)
        if state == "a restart":
            with redis.Redis.from_url(redis_like_url) as client:
                client.flushall()
        if held is not None:
            asyncio.get_running_loop().call_later(0.05, held.cancel)
        cancelled = await _await_by_await(limiter.aacquire(Cost(500)), stop)
        await _quiet()
        _flushed(limiter, other)
        if held is not None:
            held.cancel()
            _flushed(other)
        assert (limiter.stats().waiting, limiter.stats().open) == (0, 0)
        await limiter.aacquire(Cost(1))
        last = await limiter.aacquire(Cost(1))
        # The slots of these two, and the tokens of all three that were sent.
        assert [used for used, _ in last.charge.marks] == [402, 2], f"cancelled at await {stop}"
        await limiter.aclose()
        other.close()
        stop += 1
    assert stop >= 2


# Other processes


_TAKES_ALL_SLOTS = """
import sys
from dispatch_core import TokenLimiter
from dispatch_core.limit import shared
shared._LEASE = float(sys.argv[3])
limiter = TokenLimiter(concurrency=2, redis=sys.argv[1], name=sys.argv[2])
held = [limiter.try_reserve(1), limiter.try_reserve(1)]
print(None not in held, flush=True)
sys.stdin.read()
"""


def test_the_slots_of_a_killed_process_return(opened, redis_like_url, name):
    words = [sys.executable, "-c", _TAKES_ALL_SLOTS, redis_like_url, name, "3"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))) as process:
        assert process.stdout.readline().strip() == b"True"
        limiter = opened(concurrency=2)
        assert limiter.try_reserve(1) is None
        process.kill()
        process.wait()
        assert limiter.acquire(Cost(1), timeout=PATIENCE).charge.open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_a_process_of_its_own(opened):
    limiter = opened(concurrency=3)
    held = limiter.acquire(Cost(1))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            own = limiter.acquire(Cost(1), timeout=PATIENCE)
            assert held.charge in _desk(limiter)._inherited
            own.settle()
            _flushed(limiter)
            limiter.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    taken = [limiter.try_reserve(1) for _ in range(3)]
    assert [one is not None for one in taken] == [True, True, False]


# Outages


def test_a_server_that_was_never_there_leaves_each_its_part(open_one, caplog):
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    limiters = [open_one(nowhere, replicas=2, tpm=10_000) for _ in range(2)]
    for limiter in limiters:
        for _ in range(5):
            limiter.acquire(Cost(1_000))
        assert limiter.try_reserve(1_000) is None
    assert len(caplog.messages) == 2
    assert all("keeps to 1/2" in message for message in caplog.messages)


def test_while_the_server_is_down_calls_go_on_within_the_limit(own_server: Server, open_one, caplog):
    one, other = (open_one(own_server.url, tpm=10_000) for _ in range(2))
    for limiter in (one, other, one):
        limiter.acquire(Cost(100)).settle(Usage(100, 0))
    _flushed(one, other)
    own_server.stop()
    admitted = sum(limiter.try_reserve(100) is not None for _ in range(150) for limiter in (one, other))
    assert 80 <= admitted <= 97
    assert len(caplog.messages) == 2


def test_a_restarted_server_is_told_what_was_charged(own_server: Server, open_one):
    clock = Clock()
    one, other = (open_one(own_server.url, tpm=10_000, concurrency=4, clock=clock) for _ in range(2))
    for limiter in (one, other):
        limiter.acquire(Cost(5_000)).settle(Usage(4_000, 0))
        _flushed(limiter)
    held = one.acquire(Cost(500))
    own_server.stop()
    own_server.start()
    for limiter in (one, other):
        limiter.try_reserve(10)
    clock.ahead += 5.0
    for limiter in (one, other):
        limiter.try_reserve(10)
    charges = _desk(other).quota.record.charges
    assert all(charge.lease[:24] == _desk(other)._epoch for charge in charges)
    assert _spent(own_server, one) >= 8_500
    # One call is under way, those that are over hold no slot.
    held.settle(Usage(500, 0))
    _flushed(one, other)
    assert _slots(own_server) <= sum(limiter.stats().open for limiter in (one, other))


def test_what_was_charged_alone_is_told_afterwards(own_server: Server, open_one):
    clock = Clock()
    one, other = (open_one(own_server.url, tpm=10_000, replicas=2, clock=clock) for _ in range(2))
    one.acquire(Cost(100))
    other.acquire(Cost(100))
    one.acquire(Cost(100))
    _desk(one).serial.alone(lambda: _desk(one)._lost())
    alone = one.acquire(Cost(2_000))
    assert alone.charge.lease == ""
    clock.ahead += 5.0
    one.acquire(Cost(100))
    assert alone.charge.lease
    assert _spent(own_server, other) == pytest.approx(2_400)


def test_what_ended_while_the_server_hung_is_settled_afterwards(own_server: Server, open_one):
    limiter = open_one(f"{own_server.url}?socket_timeout=0.05", concurrency=1)
    held = limiter.acquire(Cost(1))
    server = own_server._process
    assert server is not None
    os.kill(server.pid, signal.SIGSTOP)
    held.settle()
    assert not _desk(limiter).flush(0.5)
    os.kill(server.pid, signal.SIGCONT)
    _flushed(limiter)
    assert _slots(own_server) == 0


def _spent(server: Server, limiter: TokenLimiter) -> float:
    """The tokens that Redis counts, but for those of this question."""
    used: float = limiter.acquire(Cost(1), timeout=PATIENCE).charge.marks[0][0]
    return used - 1


def _slots(server: Server) -> int:
    with redis.Redis.from_url(server.url) as client:
        return sum(int(client.zcard(key)) for key in client.keys("*:slots"))


# The end


async def test_closing_releases_threads_and_connections(opened, redis_like_url):
    with redis.Redis.from_url(redis_like_url) as client:
        client.ping()
        connections, threads = len(client.client_list()), threading.active_count()
        limiter = opened()
        limiter.acquire(Cost(1)).settle()
        async with limiter.reserve(1):
            assert threading.active_count() > threads
        await limiter.aclose()
        assert threading.active_count() == threads
        while len(client.client_list()) > connections:
            # The server notices a closed socket in its own time.
            await asyncio.sleep(0)


def test_a_reservation_that_is_collected_in_the_middle_of_anything_ends(opened):
    limiter = opened(concurrency=1)

    def abandoned() -> Iterator[None]:
        with limiter.reserve(1):
            yield

    desk = _desk(limiter)
    for _ in range(3):
        stream: Any = abandoned()
        next(stream)
        me = [stream]
        me.append(me)
        del stream
        with desk.serial.lock:
            del me
            gc.collect()
        _desk(limiter).serial.catch_up()
        _flushed(limiter)
        assert limiter.stats().open == 0


def test_settings_that_cannot_work_are_refused_at_once():
    for settings in (
        {"redis": "http://127.0.0.1"},
        {"redis": "redis://127.0.0.1:1/0?decode_responses=true"},
        {"redis": redis.Redis(decode_responses=True)},
        {"redis": "redis://127.0.0.1:1", "replicas": 0},
        {"redis": "redis://127.0.0.1:1", "replicas": 1.5},
    ):
        with pytest.raises(ConfigError):
            TokenLimiter(rpm=1, **settings)
