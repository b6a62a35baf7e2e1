"""Single flight and answers that come in pieces."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import Clock
from flights import COST, QUERY, World, tasks_of, until, virtual_world
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import Match, flights
from dispatch_core.flights import READING

# Streams


class _Form:
    """Texts as responses, as far as an exchange needs it."""

    name = "test"

    def encode(self, response: Any) -> bytes | None:
        return response.text.encode() or None

    def decode(self, match: Match) -> Any:
        return self._response(match.entry.payload.decode())

    def text(self, response: Any) -> str:
        return response.text

    def partial(self, response: Any, text: str, delta: str) -> Any:
        return self._response(text, delta)

    def _response(self, text: str, delta: str | None = None) -> Any:
        from llama_index.core.base.llms.types import CompletionResponse

        return CompletionResponse(text=text, delta=delta)


def _exchange(world: World) -> Any:
    pytest.importorskip("llama_index.core")
    from llamaindex_dispatch import exchange
    from llamaindex_dispatch.sending import Sending

    return exchange.Exchange(
        world.dispatcher, _Form(), exchange.Ask(QUERY, Sending(QUERY.text, None, lambda _: COST))
    )


def _streamed(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    from llamaindex_dispatch import exchange

    monkeypatch.setattr(exchange, "announce", lambda match: None)
    form = _Form()

    async def chunks() -> Any:
        world.calls += 1
        for text in ("a", "an", "answer"):
            await asyncio.sleep(10)
            yield form._response(text)

    async def call() -> Any:
        return chunks()

    return _exchange(world).astream(call)


def test_followers_wait_for_the_whole_stream(monkeypatch):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = virtual_world()

        async def reads() -> str:
            return [chunk.text async for chunk in _streamed(world, monkeypatch)][-1]

        assert await asyncio.gather(*(reads() for _ in range(20))) == ["answer"] * 20
        assert (world.calls, world.dispatcher.stats().shared) == (1, 19)

    in_virtual_time(main())


@pytest.mark.parametrize("how", ["close", "drop"])
def test_an_abandoned_stream_frees_the_others(monkeypatch, how):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = virtual_world()
        stream = _streamed(world, monkeypatch)
        await anext(stream)
        others = tasks_of(world, 5)
        await asyncio.sleep(0.5)
        assert world.waiting == 5
        if how == "close":
            await stream.aclose()
        else:
            del stream
        start = virtual_now()
        assert await asyncio.gather(*others) == [b"answer"] * 5
        assert virtual_now() - start == pytest.approx(1, abs=0.01)
        assert (world.calls, world.left_nothing()) == (2, True)

    in_virtual_time(main())


def test_an_abandoned_stream_of_a_thread_frees_the_others():
    world = World()
    form = _Form()
    stream = _exchange(world).stream(lambda: (form._response(text) for text in ("a", "answer")))
    next(stream)
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(world.ask)
        until(lambda: world.waiting == 1)
        del stream
        assert job.result() == b"answer"
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_reader_who_waits_for_others_holds_them_up_for_a_moment_only(monkeypatch):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = virtual_world()
        stream = _streamed(world, monkeypatch)
        await anext(stream)
        start = virtual_now()
        assert await asyncio.gather(*tasks_of(world, 5)) == [b"answer"] * 5
        assert virtual_now() - start == pytest.approx(READING + 1, abs=0.01), "and one of them asked for all"
        assert [chunk.text async for chunk in stream][-1] == "answer"
        assert (world.calls, world.left_nothing()) == (2, True)

    in_virtual_time(main())


def test_a_slow_model_is_waited_for_as_long_as_its_stream_is_read(monkeypatch):
    pytest.importorskip("llama_index.core")

    async def main() -> None:
        world = virtual_world()

        async def reads() -> None:
            async for _ in _streamed(world, monkeypatch):
                await asyncio.sleep(0.9 * READING)

        reading = asyncio.create_task(reads())
        await asyncio.sleep(11)
        assert await world.aask() == b"answer"
        await reading
        assert (world.calls, world.dispatcher.stats().shared) == (1, 1)

    in_virtual_time(main())


def test_a_thread_that_reads_a_stream_may_wait_for_another_that_asks_the_same(monkeypatch):
    monkeypatch.setattr(flights, "READING", 0.01)
    world = World()
    form = _Form()
    stream = _exchange(world).stream(lambda: (form._response(text) for text in ("a", "answer")))
    next(stream)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(world.ask).result() == b"answer"
    assert [piece.text for piece in stream] == ["answer"]
    assert (world.calls, world.left_nothing()) == (1, True)


def test_a_clock_that_stands_still_admits_all_the_same():
    world = World(clock=Clock())
    assert world.ask() == b"answer"
