"""Gateways in processes of their own, while something dies: a replica, Redis, the upstream, a caller.

The quota's overrun is what the simulated provider had to refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from gateways import PATIENCE, Client, Gateway, Process, deployment, eventually, to
from servers import REDIS_LIKE, Server
from upstreams import SimulatedProvider, Upstream, chunks, sse, stalls, streams

from dispatch_core.simulate.answers import AnswerBook

RPM = 3_000
MOST_OVERRUN = 0.005
QUEUED = 60.0
"""Seconds after which a call that waits for the quota is refused: nobody waits that long."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


def limited(window: float) -> tuple[SimulatedProvider, dict[str, Any]]:
    """A provider that counts requests over so many seconds, and the limits to tell a gateway."""
    return SimulatedProvider(rpm=RPM, window=window, latency=0.05), {"rpm": RPM, "window": window}


@pytest.fixture
def server() -> Iterator[Server]:
    """One that the test may stop and start."""
    started = Server(REDIS_LIKE[-1]).start()
    yield started
    started.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


def asking(what: str = "a cat", **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"How do I greet {what}?"}], **options}


def sharing(url: str, models: Any, **settings: Any) -> dict[str, Any]:
    """Settings of a replica whose cache and quota are in Redis."""
    shared = {"cache": {"embedder": "none", "url": f"{url}&index=near"}, "quota": {"redis": url, "replicas": 2}}
    return {"models": models, **shared, **settings}


@contextlib.contextmanager
def replicas(folder: Path, settings: dict[str, Any], many: int = 2) -> Iterator[list[Process]]:
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(many):
            (folder / str(number)).mkdir()
            started.append(stack.enter_context(Process(folder / str(number), settings)))
        yield started


async def answered(session: aiohttp.ClientSession, urls: Sequence[str], number: int) -> str:
    """The answer to a question. Another replica is asked when one is gone, and again what was refused."""
    question = asking(f"guest {number}")
    async with asyncio.timeout(QUEUED):
        for url in itertools.islice(itertools.cycle(urls), number, None):
            try:
                status, _, body = await Client(session, url).ask(question)
            except aiohttp.ClientError:
                continue
            if status == 200:
                return str(body["choices"][0]["message"]["content"])
            assert status == 429, body
            await asyncio.sleep(0.25)
    raise AssertionError("no replica answered")


async def a_run(
    session: aiohttp.ClientSession,
    urls: Sequence[str],
    provider: SimulatedProvider,
    many: int,
    events: Mapping[int, Callable[[], object]],
) -> float:
    """Ask so many questions at once; ``events`` happen when so many have reached the provider. The share of calls
    that the provider refused, when all are answered rightly."""
    asked = [asyncio.create_task(answered(session, urls, number)) for number in range(many)]
    for number, event in events.items():
        async with asyncio.timeout(PATIENCE):
            while (await asyncio.to_thread(provider.stats))["requests"] < number:
                await asyncio.sleep(0.005)
        await asyncio.to_thread(event)
    book = AnswerBook.load()
    for number, answer in enumerate(await asyncio.gather(*asked)):
        assert book.judge(f"How do I greet guest {number}?", answer)
    stats = provider.stats()
    print(f"\n{stats['requests']} calls at the provider, {stats['rejected_429']} refused, {stats['by_status']}")
    return float(stats["rejected_429"]) / float(stats["requests"])


async def test_when_one_of_two_replicas_is_killed_the_other_goes_on_within_the_quota(
    session: Any, tmp_path: Path, redis_like_url: str
) -> None:
    provider, limits = limited(window=2.0)
    with provider:
        settings = sharing(f"{redis_like_url}?socket_timeout=5", {"m": [deployment(provider.url, limits=limits)]})
        with replicas(tmp_path, settings) as (one, two):
            events = {80: lambda: one.signal(signal.SIGKILL)}
            overrun = await a_run(session, [one.url, two.url], provider, 240, events)
            assert one.end()[0] == -signal.SIGKILL
    assert overrun <= MOST_OVERRUN


async def test_while_redis_stops_and_starts_again_all_calls_are_answered_and_replicas_share_again(
    session: Any, tmp_path: Path, server: Server
) -> None:
    """It comes back empty, while the window is full."""
    provider, limits = limited(window=6.0)
    with provider:
        settings = sharing(f"{server.url}?socket_timeout=1", {"m": [deployment(provider.url, limits=limits)]})
        with replicas(tmp_path, settings) as (one, two):
            events = {320: server.stop, 340: server.start}
            overrun = await a_run(session, [one.url, two.url], provider, 600, events)
            for replica in (one, two):
                async with session.get(f"{replica.root}/health/ready") as response:
                    assert await response.json() == {"status": "ok"}
    assert overrun <= MOST_OVERRUN


async def test_what_a_dead_replica_held_comes_back_when_its_lease_is_over(
    upstream: Upstream, session: Any, tmp_path: Path, redis_like_url: str
) -> None:
    upstream.next(stalls(), stalls())
    models = {"m": [deployment(upstream.url, limits={"concurrency": 2})]}
    settings = sharing(f"{redis_like_url}?socket_timeout=5", models, timeouts={"queue": 0.05})
    with replicas(tmp_path, settings) as (one, two):
        lost = [asyncio.create_task(Client(session, one.url).ask(asking(f"dog {n}"))) for n in range(2)]
        await eventually(lambda: len(upstream.seen) == 2)
        one.signal(signal.SIGKILL)
        assert all(
            isinstance(error, aiohttp.ClientError) for error in await asyncio.gather(*lost, return_exceptions=True)
        )
        other = Client(session, two.url)
        assert (await other.ask(asking()))[0] == 429
        # As if a minute had passed.
        with redis.Redis.from_url(redis_like_url) as client:
            [slots] = client.keys("*:slots")
            for slot in client.zrange(slots, 0, -1):
                client.zincrby(slots, -60.0, slot)
        async with asyncio.timeout(PATIENCE):
            # It does not ask Redis again at once.
            while (await other.ask(asking()))[0] == 429:
                await asyncio.sleep(0.05)
        assert len(upstream.seen) == 3


async def test_an_upstream_that_is_silent_is_an_error_that_says_so_and_gives_its_place_back(
    upstream: Upstream, session: Any, tmp_path: Path
) -> None:
    upstream.next(stalls(), stalls(*chunks("yes")[:2]))
    limits = {"concurrency": 1}
    settings = {"models": to(upstream.url, limits=limits), "cache": {"embedder": "none"}, "timeouts": {"read": 0.3}}
    with Process(tmp_path, settings) as gateway:
        client = Client(session, gateway.url)
        status, _, body = await client.ask(asking())
        assert (status, body["error"]["code"]) == (504, "upstream_timeout")
        status, _, text = await client.ask(asking(stream=True))
        last = json.loads(text.strip().splitlines()[-1].removeprefix("data: "))
        assert (status, last["error"]["code"]) == (200, "upstream_error")
        assert (await client.ask(asking()))[0] == 200


async def slow(gateway: Gateway, sent: bytes) -> asyncio.StreamWriter:
    """A caller who sent this and reads next to nothing."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", int(gateway.root.rsplit(":", 1)[1])))
    _, writer = await asyncio.open_connection(sock=line, limit=100)
    writer.write(sent)
    return writer


def head(length: int) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Piece after piece, until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)


async def test_slow_callers_hold_up_nobody_and_are_left_at_the_deadline(upstream: Upstream, session: Any) -> None:
    """One never ends his head, one his body, one reads nothing of a long answer, one nothing of many short ones."""
    upstream.next(streams(*[sse({"choices": [], "filler": "x" * 100_000})] * 1_000))
    limits = {"concurrency": 2}
    settings = {"models": to(upstream.url, limits=limits), "timeouts": {"total": 1.0}}
    long = json.dumps(asking("everybody", stream=True)).encode()
    with Gateway(settings) as gateway:
        reads_nothing = await slow(gateway, head(len(long)) + long)
        await eventually(lambda: len(upstream.seen) == 1)
        writers = [
            reads_nothing,
            await slow(gateway, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3_000),
            await slow(gateway, b"GET / HTTP/1.1\r\nhost: localhost\r\n"),
            await slow(gateway, head(100_000) + b'{"model": "m"'),
        ]
        trickling = [
            asyncio.create_task(trickle(writer, piece))
            for writer, piece in zip(writers[2:], (b"x-a: b\r\n", b" "), strict=True)
        ]
        client = Client(session, gateway.url)
        for number in range(20):
            assert (await client.ask(asking(f"guest {number}")))[0] == 200
        lines = gateway.server.server_state.connections
        await eventually(lambda: len(lines) == 1)
        await asyncio.gather(*trickling)
        for writer in writers:
            writer.transport.abort()
        shown = gateway.service.snapshot()
        assert upstream.seen[0].left.is_set()
        assert (shown["under_way"], [one["used"] for one in shown["limits"]]) == (0, [0])
