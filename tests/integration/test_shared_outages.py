"""Token limiters that share one quota when processes die, fork, and servers fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from servers import Server, free_port
from sharing import PATIENCE, Clock, Stopped, desk_of, flushed

from dispatch_core import ConfigError, Cost, LimitExceeded, TokenLimiter, Usage
from dispatch_core._flow import Flow
from dispatch_core.limit import shared

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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_a_process_of_its_own(opened):
    limiter = opened(concurrency=3)
    held = limiter.acquire(Cost(1))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            own = limiter.acquire(Cost(1), timeout=PATIENCE)
            assert held.charge in desk_of(limiter)._inherited
            own.settle()
            flushed(limiter)
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
    flushed(one, other)
    own_server.stop()
    admitted = sum(limiter.try_reserve(100) is not None for _ in range(150) for limiter in (one, other))
    assert 80 <= admitted <= 97
    assert len(caplog.messages) == 2


def test_whom_a_lost_server_granted_ahead_goes_before_those_who_are_let_in_alone(own_server: Server, open_one):
    clock = Stopped()
    one = open_one(own_server.url, rpm=600, burst=1.0, clock=clock)
    ahead = [one.acquire(Cost(1)) for _ in range(11)][-1]
    assert ahead.charge.at > clock.now
    desk_of(one).serial.alone(lambda: desk_of(one)._lost())
    assert one.try_reserve(1) is None
    assert one.eta(1) >= ahead.charge.at - clock.now
    clock.now += 0.9
    assert one.try_reserve(1) is not None


def test_whom_a_lost_server_granted_ahead_is_not_called_back(own_server: Server, open_one, monkeypatch):
    one = open_one(own_server.url, rpm=600, burst=0.1, replicas=2)
    one.acquire(Cost(1))
    pauses = []

    def lost_meanwhile(seconds: float) -> Flow[None]:
        pauses.append(seconds)
        desk_of(one).serial.alone(desk_of(one)._lost)
        yield from ()

    monkeypatch.setattr(shared, "pause", lost_meanwhile)
    assert one.acquire(Cost(1), timeout=PATIENCE).charge.lease
    assert len(pauses) == 1


async def test_whoever_waits_alone_asks_again_when_he_may(own_server: Server, open_one):
    """He slept until his part had room for him, for a window at most, long after the server was back."""
    one = open_one(own_server.url, tpm=10_000, replicas=2)
    other = open_one(own_server.url, tpm=10_000, replicas=2)
    for limiter, tokens in ((one, 1), (other, 1), (one, 1), (one, 4_900)):
        (await limiter.aacquire(Cost(tokens))).settle()
    desk_of(one).serial.alone(lambda: desk_of(one)._lost())
    # His part has no room for that for a minute, the limit has.
    async with asyncio.timeout(PATIENCE):
        held = await one.aacquire(Cost(2_000))
    assert held.charge.lease
    for limiter in (one, other):
        await limiter.aclose()


def test_a_restarted_server_is_told_what_was_charged(own_server: Server, open_one):
    clock = Clock()
    one, other = (open_one(own_server.url, tpm=10_000, concurrency=4, clock=clock) for _ in range(2))
    for limiter in (one, other):
        limiter.acquire(Cost(5_000)).settle(Usage(4_000, 0))
        flushed(limiter)
    held = one.acquire(Cost(500))
    own_server.stop()
    own_server.start()
    for limiter in (one, other):
        limiter.try_reserve(10)
    clock.ahead += 5.0
    for limiter in (one, other):
        limiter.try_reserve(10)
    charges = desk_of(other).quota.record.charges
    assert all(charge.lease[:24] == desk_of(other)._epoch for charge in charges)
    assert _spent(own_server, one) >= 8_500
    # One call is under way, those that are over hold no slot.
    held.settle(Usage(500, 0))
    flushed(one, other)
    assert _slots(own_server) <= sum(limiter.stats().open for limiter in (one, other))


def test_what_headers_tell_of_the_other_processes_is_not_taken_off_a_part(own_server: Server, open_one):
    one = open_one(own_server.url, tpm=10_000, replicas=2)
    for _ in range(2):
        one.acquire(Cost(100), timeout=PATIENCE).settle(Usage(100, 0), _told(10_000))
    desk_of(one).serial.alone(lambda: desk_of(one)._lost())
    for _ in range(2):
        one.acquire(Cost(100), timeout=PATIENCE).settle(Usage(100, 0), _told(2_000))
    [gauge] = desk_of(one).quota.gauges
    assert gauge.capacity == 10_000 / desk_of(one)._outage.replicas


def test_what_the_others_have_not_told_a_restarted_server_is_no_use_by_strangers(own_server: Server, open_one):
    """It was taken for that: what all of them had used was kept free, and calls waited for windows to be empty."""
    clock = Stopped()
    one, other = (open_one(own_server.url, tpm=10_000, clock=clock) for _ in range(2))
    for limiter in (one, other):
        limiter.acquire(Cost(4_000)).settle(Usage(4_000, 0), _told(6_000))
    _restart(own_server, one, clock)
    [gauge] = desk_of(one).quota.gauges
    for remaining in (1_900, 1_800):
        one.acquire(Cost(100)).settle(Usage(100, 0), _told(remaining))
    assert gauge.capacity == 10_000
    clock.now += 61.0
    one.acquire(Cost(100)).settle(Usage(100, 0), _told(1_700))
    assert gauge.capacity < 10_000


def test_until_the_others_have_told_a_restarted_server_each_keeps_to_its_part(own_server: Server, open_one):
    clock = Stopped()
    one, other = (open_one(own_server.url, tpm=10_000, clock=clock) for _ in range(2))
    for limiter in (one, other, one):
        limiter.acquire(Cost(100))
    assert _allowed(one) == 10_000
    _restart(own_server, one, clock)
    assert _allowed(one) == 5_000
    _tell(other, clock)
    one.try_reserve(1)
    assert _allowed(one) == 10_000


def test_what_the_others_may_have_done_alone_is_left_to_them_when_a_server_that_forgot_nothing_is_back(
    own_server: Server, open_one
):
    clock = Stopped()
    one, other = (open_one(own_server.url, tpm=10_000, clock=clock) for _ in range(2))
    for limiter in (one, other, one):
        limiter.acquire(Cost(100))
    desk_of(one).serial.alone(lambda: desk_of(one)._lost())
    clock.now += 1.0
    one.acquire(Cost(100), timeout=PATIENCE)
    assert 9_000 < _allowed(one) < 10_000
    clock.now += 11.0
    assert _allowed(one) == 10_000


def test_who_never_tells_a_restarted_server_anything_holds_nothing_back_for_long(own_server: Server, open_one):
    clock = Stopped()
    one, other = (open_one(own_server.url, tpm=10_000, clock=clock) for _ in range(2))
    for limiter in (one, other, one):
        limiter.acquire(Cost(100))
    _restart(own_server, one, clock)
    assert _allowed(one) == 5_000
    clock.now += 11.0
    assert _allowed(one) == 10_000


def test_what_was_charged_alone_is_told_afterwards(own_server: Server, open_one):
    clock = Clock()
    one, other = (open_one(own_server.url, tpm=10_000, replicas=2, clock=clock) for _ in range(2))
    one.acquire(Cost(100))
    other.acquire(Cost(100))
    one.acquire(Cost(100))
    desk_of(one).serial.alone(lambda: desk_of(one)._lost())
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
    assert not desk_of(limiter).flush(0.5)
    os.kill(server.pid, signal.SIGCONT)
    flushed(limiter)
    assert _slots(own_server) == 0


def _told(remaining: int) -> dict[str, str]:
    return {"x-ratelimit-limit-tokens": "10000", "x-ratelimit-remaining-tokens": str(remaining)}


def _restart(server: Server, limiter: TokenLimiter, clock: Stopped) -> None:
    """It comes back empty, and this limiter has told it what it charged."""
    server.stop()
    server.start()
    _tell(limiter, clock)


def _tell(limiter: TokenLimiter, clock: Stopped) -> None:
    before = desk_of(limiter)._epoch
    while desk_of(limiter)._epoch == before:
        limiter.try_reserve(1)
        if desk_of(limiter)._outage.lasts:
            clock.now += 1.0
    # Who tells is counted when he asks again.
    limiter.try_reserve(1)


def _allowed(limiter: TokenLimiter) -> float:
    """What it would let Redis grant to all of them within a window."""
    desk = desk_of(limiter)
    [plan] = desk._plans_now(desk._clock())
    capacity: float = plan.capacity
    return capacity


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
        connections = len(client.client_list())
        limiter = opened()
        limiter.acquire(Cost(1)).settle()
        courier = desk_of(limiter)._courier._thread
        async with limiter.reserve(1):
            assert courier.is_alive()
        await limiter.aclose()
        assert not courier.is_alive()
        while len(client.client_list()) > connections:
            # The server notices a closed socket in its own time.
            await asyncio.sleep(0)


def test_a_reservation_that_is_collected_in_the_middle_of_anything_ends(opened):
    limiter = opened(concurrency=1)

    def abandoned() -> Iterator[None]:
        with limiter.reserve(1):
            yield

    desk = desk_of(limiter)
    for _ in range(3):
        stream: Any = abandoned()
        next(stream)
        me = [stream]
        me.append(me)
        del stream
        with desk.serial.lock:
            del me
            gc.collect()
        desk_of(limiter).serial.catch_up()
        flushed(limiter)
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


# What a review found


def test_an_asker_whose_loop_does_not_run_blocks_nobody(own_server: Server, open_one):
    clock = Clock()
    limiter = open_one(own_server.url, clock=clock)
    limiter.acquire(Cost(1)).settle()
    asks = limiter.aacquire(Cost(1))

    async def begins() -> None:
        """Asks, and is left alone by its loop before Redis has answered."""
        with contextlib.suppress(StopIteration):
            asks.send(None)

    asyncio.run(begins())
    assert desk_of(limiter)._asking is not None
    clock.ahead += 60
    assert limiter.acquire(Cost(1), timeout=PATIENCE).charge.open
    with contextlib.suppress(BaseException):
        asks.close()


def test_who_logs_an_outage_may_ask_the_limiter(own_server: Server, open_one):
    limiter = open_one(own_server.url, replicas=2)
    seen = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(limiter.stats().waiting)

    handler = Handler()
    logging.getLogger("dispatch_core").addHandler(handler)
    try:
        own_server.stop()
        limiter.acquire(Cost(1)).settle()
    finally:
        logging.getLogger("dispatch_core").removeHandler(handler)
    assert seen == [0]


def test_a_closed_limiter_goes_on_alone(opened):
    limiter = opened(tpm=10_000, replicas=2)
    limiter.acquire(Cost(1)).settle()
    limiter.close()
    limiter.acquire(Cost(1)).settle()
    assert desk_of(limiter)._courier._thread is None


def test_a_queue_of_none_waits_for_no_grant(opened):
    limiter = opened(rpm=60, burst=1.0, max_queue=0)
    limiter.acquire(Cost(1))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(1))
    assert limiter.eta(Cost(1)) > 0


def test_without_a_name_other_limits_are_another_quota(redis_like_url):
    small, large = (TokenLimiter(tpm=tpm, redis=redis_like_url, burst=60.0) for tpm in (1_017, 10_017))
    try:
        small.acquire(Cost(1_000))
        assert large.try_reserve(5_000) is not None
    finally:
        small.close()
        large.close()


def test_what_redis_will_never_take_holds_nothing_up(opened, caplog):
    limiter = opened()
    limiter.acquire(Cost(1)).settle()
    desk_of(limiter)._courier.settle("nonsense", [math.nan, math.nan])
    flushed(limiter)
    assert any("was lost" in message for message in caplog.messages)
