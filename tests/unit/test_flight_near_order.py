"""Single flight of questions in other words, in every order: no two wait for each other, and of two one goes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from typing import Any

import numpy as np
import pytest
from awaits import await_by_await
from fakes import made, unit
from flights import QUERY, SlowStore, World, settled, virtual_world, worded
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaved import interleaved
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import Match, Query, Ticket
from dispatch_core._flow import run
from dispatch_core.flight import FREED
from dispatch_core.flights import Flights, Seat
from dispatch_core.near import Block

FILES = ("flight.py", "flights.py", "near.py")
VECTOR = unit(1, 0, 0)


# Two threads, instruction by instruction


def _led(flights: Flights, name: str) -> Seat:
    return run(flights.join((made(name).id, True), 1.0))


def _waits(flights: Flights, seat: Seat, name: str) -> bool:
    """Join by meaning as far as to the moment of waiting."""
    flow = flights.join_near(seat, made(name), VECTOR, lambda question, score: True, 4)
    try:
        next(flow)
    except StopIteration:
        return False
    flow.close()
    return True


def _two_at_once(stretches: list[int]) -> int:
    flights = Flights(timeout=60, clock=lambda: 0.0)
    seats = {name: _led(flights, name) for name in ("one", "other")}
    jobs = tuple((lambda name=name: _waits(flights, seats[name], name)) for name in seats)
    waits, steps = interleaved(jobs, FILES, stretches)
    assert sorted(waits) == [False, True]
    return steps


def test_of_two_at_once_one_waits_wherever_the_other_comes_between():
    steps = _two_at_once([])
    assert steps > 100
    for stop in range(steps):
        _two_at_once([stop])


@given(st.lists(st.integers(0, 120), min_size=2, max_size=8))
@settings(max_examples=200, deadline=None)
def test_of_two_at_once_one_waits_however_often_they_change(stretches):
    _two_at_once(stretches)


def _ended_while_announced(stretches: list[int]) -> int:
    flights = Flights(timeout=60, clock=lambda: 0.0)
    seat = _led(flights, "one")
    announces = lambda: _waits(flights, seat, "one")  # noqa: E731
    ends = lambda: seat.lead.end(FREED)  # noqa: E731
    _, steps = interleaved((announces, ends), FILES, stretches)
    assert len(flights._block) == len(flights) == 0
    return steps


def test_a_flight_that_ends_while_it_is_announced_leaves_nothing():
    for stop in range(_ended_while_announced([])):
        _ended_while_announced([stop])


@given(st.lists(st.integers(0, 60), min_size=2, max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_flight_that_ends_while_it_is_announced_leaves_nothing_however_often_they_change(stretches):
    _ended_while_announced(stretches)


# Every await, every order


@pytest.mark.parametrize("outcomes", [[], [None], [ValueError("down")]], ids=["answered", "unstorable", "failed"])
def test_a_cancellation_at_any_await_leaves_nothing_and_nobody_behind(outcomes):
    async def cancelled_at(stop: int) -> bool:
        world = virtual_world(store=SlowStore(), write_behind=False)
        world.outcomes = list(outcomes)
        first = asyncio.create_task(world.aask())
        await asyncio.sleep(0.05)
        work = asyncio.create_task(await_by_await(world.aask(worded(0)), stop))
        await asyncio.sleep(0)
        others = [asyncio.create_task(world.aask(worded(number))) for number in (0, 0, 1, 2)]
        with contextlib.suppress(ValueError):
            await work
        done = await asyncio.gather(first, *others, return_exceptions=True)
        assert all(one in (b"answer", None) or isinstance(one, ValueError) for one in done)
        assert world.left_nothing()
        return not work.exception() and work.result()[0]

    stops = 0
    while stops < 40 and in_virtual_time(cancelled_at(stops)):
        stops += 1
    assert 3 <= stops < 40


_DEEDS = ["finish", "finish", "nothing", "abort", "drop", "cancel"]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_they_ask_and_hold_nobody_waits_without_an_end(data):
    """Everybody asks up to three questions, holding the tickets that he got; a circle would last for a million
    seconds, and whoever sleeps without a timer is an error of the loop."""
    number = data.draw(st.integers(2, 8))
    asks = [data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)) for _ in range(number)]
    does = [[data.draw(st.sampled_from(_DEEDS)) for _ in each] for each in asks]
    takes = [[data.draw(st.sampled_from([0.0, 1.0, 9.0])) for _ in each] for each in asks]
    gives_up = [data.draw(st.sampled_from([None, None, 0.5, 1.0])) for _ in range(number)]

    async def main() -> None:
        world = virtual_world(flight_timeout=1e6)

        async def asker(index: int) -> None:
            held: list[Any] = []
            for ask, deed, seconds in zip(asks[index], does[index], takes[index], strict=True):
                found = await world.dispatcher.abegin(worded(ask))
                await asyncio.sleep(seconds)
                if isinstance(found, Match):
                    assert found.entry.payload == b"answer"
                else:
                    held.append((found, deed))
            for ticket, deed in held:
                if deed in ("finish", "nothing"):
                    await world.dispatcher.afinish(ticket, b"answer" if deed == "finish" else None)
                elif deed == "abort":
                    world.dispatcher.abort(ticket)
                elif deed == "cancel":
                    raise asyncio.CancelledError

        async def patient(index: int) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asker(index), gives_up[index])

        await asyncio.gather(*(patient(index) for index in range(number)), return_exceptions=True)
        assert virtual_now() < 1_000
        gc.collect()
        await settled()
        assert world.left_nothing()

    gc.freeze()  # what was there before need not be collected in every example
    try:
        in_virtual_time(main())
    finally:
        gc.unfreeze()


def test_finalisers_at_every_moment_lose_nobody():
    """The collector runs as often as it can, in threads that ask in many words, drop their tickets, and wait."""
    world, before = World(), gc.get_threshold()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            found = world.dispatcher.begin(Query(worded(chance.randrange(5)).text, scope=f"{chance.randrange(3)}"))
            if isinstance(found, Ticket):
                if chance.random() < 0.2:
                    world.dispatcher.finish(found, None)
                else:
                    cycle: list[Any] = [found]
                    cycle.append(cycle)
                    del cycle
            del found
            _ = [[] for _ in range(20)]

    gc.set_threshold(7, 1, 1)
    try:
        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
        for thread in threads:
            thread.start()
        collects = time.monotonic() + 60
        while any(thread.is_alive() for thread in threads):
            gc.collect()
            assert time.monotonic() < collects
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert world.left_nothing()


# The block


def test_the_nearest_of_a_scope_come_first():
    block: Block[str] = Block()
    for name, vector in {"far": unit(0, 1, 0), "same": unit(1, 0, 0), "near": unit(3, 1, 0)}.items():
        block.put("ours", vector, name)
    block.put("theirs", VECTOR, "another's")
    found = list(block.nearest("ours", VECTOR))
    assert [name for name, _ in found] == ["same", "near", "far"]
    assert [score for _, score in found] == pytest.approx([1.0, 3 / np.sqrt(10), 0.0])
    assert list(block.nearest("nobody's", VECTOR)) == []


def test_a_full_block_takes_no_more_until_a_row_is_given_back():
    block: Block[int] = Block(rows=3)
    rows = [block.put("scope", VECTOR, number) for number in range(4)]
    assert (rows.count(None), len(block)) == (1, 3)
    assert rows[1] is not None
    block.give_back(rows[1])
    assert block.put("scope", VECTOR, 9) == rows[1]
    assert sorted(number for number, _ in block.nearest("scope", VECTOR)) == [0, 2, 9]


def test_vectors_of_another_length_are_not_compared():
    block: Block[str] = Block()
    assert list(block.nearest("scope", VECTOR)) == []
    block.put("scope", VECTOR, "of three")
    assert block.put("scope", unit(1, 0), "of two") is None
    assert list(block.nearest("scope", unit(1, 0))) == []


def test_a_row_that_is_being_filled_is_compared_with_what_it_holds():
    block: Block[str] = Block()
    row = block.put("scope", unit(0, 1, 0), "kept")
    assert block._vectors is not None
    block._vectors[row] = VECTOR
    assert list(block.nearest("scope", VECTOR)) == [("kept", 0.0)]
    block._kept[0] = ("another", VECTOR, "of another scope")
    assert list(block.nearest("scope", VECTOR)) == []


def test_more_questions_than_rows_are_all_answered():
    async def main() -> None:
        world = virtual_world()
        asked = [Query(f"{number}" * 9) for number in range(300)]
        tasks = [asyncio.create_task(world.aask(query)) for query in [*asked, QUERY, worded(1)]]
        assert await asyncio.gather(*tasks) == [b"answer"] * 302
        assert world.left_nothing()

    in_virtual_time(main())
