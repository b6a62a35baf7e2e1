"""What the Redis store adds to a bare GET, what it saves by taking what waits together, and how often it goes there.

``python -m benchmarks.cache_speed.redis_round_trips [redis-server or another program]`` starts a server of its own.
All arms take turns in one run, in an order of chance. CPU is that of this process and the server together, in µs;
compare the ratios, which hold on a busy machine. Payloads have 1 kB, vectors 384 dimensions.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import redis
import redis.asyncio

from dispatch_core import Entry, RedisNearStore, Usage
from dispatch_core.stores._near import Keys
from dispatch_core.stores._packed import row

_ENTRIES, _ROUNDS, _CALLS, _ASKERS, _EACH = 1_000, 15, 1_500, 100, 20
_MANY = 100_000
_SCOPE, _NOW = "s" * 40, 1_000.0
_TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(program: str) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        words = [program, "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(port=port) as client:
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0", process.pid
        finally:
            process.kill()
            process.wait()


class _Meter:
    """CPU seconds of this process and of the server, and seconds by the wall."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def read(self) -> tuple[float, float]:
        with open(f"/proc/{self._pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / _TICK, time.perf_counter()


def _entry(number: int) -> Entry:
    text = f"what is the answer to question number {number}?"
    return Entry(f"{number:040d}", "n" * 40, _SCOPE, text, os.urandom(1_000), Usage(100, 200), _NOW)


def _vectors(count: int) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((count, 384), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _row(name: str, cpu: list[float], wall: list[float], base: tuple[float, float]) -> None:
    ratio = f"{median(cpu) / base[0]:6.2f} {median(wall) / base[1]:6.2f}"
    print(f"{name:44} {median(cpu):9.1f} {median(wall):9.1f}  {ratio}")


def one_by_one(url: str, meter: _Meter) -> None:
    """Threads: one caller, one call after another."""
    client, store = redis.Redis.from_url(url), RedisNearStore(url, timeout=20)
    vectors = _vectors(_ENTRIES)
    for number in range(_ENTRIES):
        entry = _entry(number)
        store.put(entry, vectors[number])
        client.set(f"bare:{number}", entry.payload)
    turn = iter(range(10**9))
    arms: dict[str, Callable[[], object]] = {
        "bare GET of the payload (redis-py, hiredis)": lambda: client.get(f"bare:{next(turn) % _ENTRIES}"),
        "exact hit: get": lambda: store.get(f"{next(turn) % _ENTRIES:040d}", now=_NOW),
        "search, top 1 of 1,000": lambda: store.search(
            vectors[next(turn) % _ENTRIES], scope=_SCOPE, limit=1, now=_NOW
        ),
        "search, top 9 of 1,000": lambda: store.search(
            vectors[next(turn) % _ENTRIES], scope=_SCOPE, limit=9, now=_NOW
        ),
    }
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in arms}
    for _ in range(_ROUNDS):
        for name in random.sample(list(arms), len(arms)):
            before = meter.read()
            for _ in range(_CALLS):
                arms[name]()
            after = meter.read()
            for kept, start, end in zip(taken[name], before, after, strict=True):
                kept.append((end - start) / _CALLS * 1e6)
    base = tuple(median(kept) for kept in next(iter(taken.values())))
    print(f"\n{'one caller':44} {'CPU µs':>9} {'wall µs':>9}   ratio to bare GET (CPU, wall)")
    for name, (cpu, wall) in taken.items():
        _row(name, cpu, wall, (base[0], base[1]))
    client.config_resetstat()
    for number in range(100):
        store.search(vectors[number], scope=_SCOPE, limit=9, now=_NOW)
    calls = {name: client.info("commandstats")[f"cmdstat_{name}"]["calls"] for name in ("mget", "xrange")}
    print(f"100 searches: {calls['mget']} MGET and {calls['xrange']} XRANGE, sent in pairs: one round trip each")
    store.close()
    client.close()


async def many_at_once(url: str, meter: _Meter) -> None:
    """One event loop, a hundred askers."""
    client, store = redis.asyncio.Redis.from_url(url), RedisNearStore(url, timeout=20)
    vectors = _vectors(_ENTRIES)

    async def plain(number: int) -> None:
        await client.get(f"bare:{number % _ENTRIES}")

    async def exact(number: int) -> None:
        await store.aget(f"{number % _ENTRIES:040d}", now=_NOW)

    async def search(number: int) -> None:
        await store.asearch(vectors[number % _ENTRIES], scope=_SCOPE, limit=1, now=_NOW)

    arms = {"plain redis.asyncio GET": plain, "exact hit: aget": exact, "asearch, top 1 of 1,000": search}
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in arms}
    for _ in range(_ROUNDS):
        for name in random.sample(list(arms), len(arms)):
            ask = arms[name]

            async def asker(start: int, ask: Callable[[int], object] = ask) -> None:
                for number in range(start, start + _EACH):
                    await ask(number)  # type: ignore[misc]

            before = meter.read()
            await asyncio.gather(*(asker(start * 7) for start in range(_ASKERS)))
            after = meter.read()
            for kept, start_at, end in zip(taken[name], before, after, strict=True):
                kept.append((end - start_at) / (_ASKERS * _EACH) * 1e6)
    base = tuple(median(kept) for kept in taken["plain redis.asyncio GET"])
    print(f"\n{'100 askers on one event loop':44} {'CPU µs':>9} {'wall µs':>9}   ratio to plain GET; calls a second")
    for name, (cpu, wall) in taken.items():
        ratio = f"{median(cpu) / base[0]:6.2f} {median(wall) / base[1]:6.2f}"
        print(f"{name:44} {median(cpu):9.1f} {median(wall):9.1f}  {ratio}   {1e6 / median(wall):9,.0f}/s")
    await store.aclose()
    await client.aclose()


def warm_start(url: str, meter: _Meter) -> None:
    """A new process mirrors what is there; what the entries take here and there."""
    vectors = _vectors(_MANY)
    # Written past the store, which would take a script and a line of the journal for each.
    with redis.Redis.from_url(url) as client:
        for start in range(0, _MANY, 1_000):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, start + 1_000):
                entry = _entry(number)
                pipeline.set(Keys.of("many").entries + entry.id, row(entry, vectors[number]))
            pipeline.execute()
    store = RedisNearStore(url, prefix="many", timeout=20)
    before = meter.read()
    store.search(vectors[0], scope=_SCOPE, limit=1, now=_NOW)
    cpu, wall = (end - start for start, end in zip(before, meter.read(), strict=True))
    memory = store.memory(samples=100)
    print(
        f"\nwarm start: {memory.entries:,} entries in {wall:.1f} s, {memory.entries / wall:,.0f}/s ({cpu:.1f} s CPU)"
    )
    print(
        f"memory per entry: {memory.per_entry:,.0f} B here, {(memory.server or 0) / memory.entries:,.0f} B in Redis"
    )
    store.close()


def main() -> None:
    program = sys.argv[1] if len(sys.argv) > 1 else "redis-server"
    with _server(program) as (url, pid):
        meter = _Meter(pid)
        one_by_one(url, meter)
        asyncio.run(many_at_once(url, meter))
        warm_start(url, meter)


if __name__ == "__main__":
    main()
