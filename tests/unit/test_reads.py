"""Reads that wait on one event loop are taken together, and none hurts another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from dispatch_core import StoreError
from dispatch_core.stores._reads import Reads


class Server:
    """Answers a round trip when it is let; a key's value is its name and the number of the round trip."""

    cluster = False

    def __init__(self) -> None:
        self.asked: list[Sequence[Any]] = []
        self._gates: list[asyncio.Future[None]] = []

    def async_wire(self) -> None:
        return None

    async def asend(self, commands: Sequence[Any]) -> list[Any]:
        self.asked.append(commands)
        number = len(self.asked)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        values = [f"{key} {number}".encode() for key in commands[0][1:]]
        return [values, *(["news"] for _ in commands[1:])]

    async def let(self, error: Exception | None = None) -> None:
        """Let the oldest round trip end, and all who wait for it go on."""
        gate = self._gates.pop(0)
        if gate.done():
            # Who waited for it gave up.
            pass
        elif error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        await _turns()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def reads(server: Server) -> Reads:
    return Reads(server, lambda: (len(server.asked), ("XRANGE",)))


async def _ask(reads: Reads, *keys: str, tail: bool = False) -> asyncio.Task[Any]:
    task = asyncio.create_task(reads.anow(keys, tail))
    await asyncio.sleep(0)
    return task


async def test_who_is_alone_goes_at_once_and_what_waits_meanwhile_goes_together(server, reads):
    first = await _ask(reads, "a")
    others = [await _ask(reads, *keys) for keys in ("b", "c", "bc", "a")]
    await server.let()
    assert (await first).values["a"] == b"a 1"
    assert server.asked == [[("MGET", "a")], [("MGET", "b", "c", "a")]]
    await server.let()
    assert [(await task).values["b"] for task in (others[0], others[2])] == [b"b 2", b"b 2"]
    assert (await others[3]).values["a"] == b"a 2"


async def test_nobody_is_answered_by_a_round_trip_that_began_before_the_question(server, reads):
    tasks = []
    for number in range(5):
        tasks.append(await _ask(reads, "a"))
        if number:
            await server.let()
    await server.let()
    assert [(await task).values["a"] for task in tasks] == [f"a {number}".encode() for number in (1, 2, 3, 4, 5)]


async def test_the_tail_is_asked_for_once_and_marked_as_it_is_sent(server, reads):
    first = await _ask(reads, "a")
    others = [await _ask(reads, "b", tail=number % 2 == 0) for number in range(4)]
    await server.let()
    await server.let()
    assert ((await first).tail, (await first).mark) == (None, None)
    assert [((await task).tail, (await task).mark) for task in others] == [(["news"], 1)] * 4
    assert server.asked[1] == [("MGET", "b"), ("XRANGE",)]


@pytest.mark.parametrize("who", [0, 1, 2])
async def test_who_gives_up_leaves_the_others_alone(server, reads, who):
    tasks = [await _ask(reads, key) for key in "abc"]
    tasks[who].cancel()
    await _turns()
    while server.asked and not all(task.done() for task in tasks):
        await server.let()
    for number, task in enumerate(tasks):
        if number == who:
            assert task.cancelled()
        else:
            assert (await task).values["abc"[number]].startswith(b"abc"[number : number + 1])
    again = await _ask(reads, "d")
    await server.let()
    assert (await again).values["d"].startswith(b"d")


async def test_a_round_trip_that_fails_fails_for_those_it_was_to_answer_and_each_has_an_error_of_his_own(
    server, reads
):
    tasks = [await _ask(reads, key) for key in "abc"]
    await server.let()
    await server.let(redis.ConnectionError("gone"))
    assert (await tasks[0]).values == {"a": b"a 1"}
    errors = []
    for task in tasks[1:]:
        with pytest.raises(StoreError, match="Redis failed: ConnectionError: gone") as failed:
            await task
        errors.append(failed.value)
    assert errors[0] is not errors[1]
    again = await _ask(reads, "d")
    await server.let()
    assert (await again).values == {"d": b"d 3"}


async def test_who_was_answered_and_asks_again_at_once_goes_with_the_others(server, reads):
    async def asker(number: int) -> None:
        for turn in range(3):
            assert await reads.avalue(f"{number}") == f"{number} {len(server.asked)}".encode(), turn

    askers = [asyncio.create_task(asker(number)) for number in range(10)]
    await _turns()
    while server.asked and not all(task.done() for task in askers):
        await server.let()
    await asyncio.gather(*askers)
    # The first goes alone, once.
    assert [len(commands[0]) - 1 for commands in server.asked] == [1, 10, 10, 9]


async def test_values_of_the_same_key_are_asked_for_once(server, reads):
    first = asyncio.create_task(_value(reads, "x"))
    await asyncio.sleep(0)
    others = [asyncio.create_task(_value(reads, key)) for key in "abab"]
    await asyncio.sleep(0)
    await server.let()
    await server.let()
    assert await first == b"x 1"
    assert [await task for task in others] == [b"a 2", b"b 2", b"a 2", b"b 2"]
    assert server.asked[1] == (("MGET", "a", "b"),)


async def _value(reads: Reads, key: str) -> bytes | None:
    return await reads.avalue(key)


async def test_more_keys_than_one_command_should_have_are_several(server, reads):
    first = await _ask(reads, "a")
    many = [await _ask(reads, *(f"{task} {number}" for number in range(200))) for task in range(5)]
    for _ in range(4):
        await server.let()
    assert [len(commands[0]) - 1 for commands in server.asked] == [1, 400, 400, 200]
    assert [len((await task).values) for task in (first, *many)] == [1, 400, 400, 400, 400, 200]


def test_a_loop_that_ends_leaves_nobody_waiting(server):
    reads = Reads(server, lambda: (None, ("XRANGE",)))
    fates = []

    async def ask(key: str) -> None:
        try:
            await reads.anow((key,))
        except asyncio.CancelledError:
            fates.append(key)
            raise

    async def main() -> None:
        tasks = [asyncio.create_task(ask(key)) for key in "abc"]
        await _turns()
        await server.let()
        assert [task.done() for task in tasks] == [True, False, False]

    asyncio.run(main())
    assert sorted(fates) == ["b", "c"]
