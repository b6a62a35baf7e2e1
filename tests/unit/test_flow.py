"""One generator of logic, two drivers that agree."""

from __future__ import annotations

import asyncio

import pytest

from dispatch_core._flow import Flow, arun, pause, run, step, unbroken


class World:
    """Remembers what was called, and in which form."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def double(self, number: int) -> int:
        self.calls.append("double")
        if number < 0:
            raise ValueError(number)
        return 2 * number

    async def adouble(self, number: int) -> int:
        await asyncio.sleep(0)
        result = self.double(number)
        self.calls[-1] = "adouble"
        return result


def _sum(world: World, *numbers: int) -> Flow[int]:
    total = 0
    for number in numbers:
        total += yield from step(world.double, world.adouble, number)
    return total


def _forgiving(world: World, number: int) -> Flow[str]:
    try:
        yield from step(world.double, world.adouble, number)
    except ValueError:
        back = yield from step(world.double, world.adouble, 1)
        return f"recovered with {back}"
    finally:
        world.calls.append("cleaned")
    return "fine"


@pytest.mark.parametrize("numbers", [(), (1,), (1, 2, 3)])
async def test_both_drivers_return_the_same(numbers):
    blocking, awaited = World(), World()
    assert run(_sum(blocking, *numbers)) == await arun(_sum(awaited, *numbers)) == 2 * sum(numbers)
    assert blocking.calls == ["double"] * len(numbers)
    assert awaited.calls == ["adouble"] * len(numbers)


@pytest.mark.parametrize(("number", "outcome"), [(1, "fine"), (-1, "recovered with 2")])
async def test_an_error_of_a_step_is_raised_inside_the_flow(number, outcome):
    world = World()
    assert run(_forgiving(world, number)) == await arun(_forgiving(world, number)) == outcome
    assert world.calls.count("cleaned") == 2


async def test_an_error_the_flow_does_not_catch_reaches_the_caller():
    with pytest.raises(ValueError, match="-3"):
        run(_sum(World(), 1, -3))
    with pytest.raises(ValueError, match="-3"):
        await arun(_sum(World(), 1, -3))


async def test_a_cancellation_lets_the_flow_clean_up():
    world = World()
    reached = asyncio.Event()

    async def forever() -> None:
        reached.set()
        await asyncio.Event().wait()

    def flow() -> Flow[None]:
        try:
            yield from step(lambda: None, forever)
        except asyncio.CancelledError:
            yield from step(world.double, world.adouble, 1)
            raise

    task = asyncio.create_task(arun(flow()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.calls == ["adouble"]


async def test_a_coroutine_that_is_thrown_away_lets_the_flow_clean_up():
    world = World()

    async def forever() -> None:
        await asyncio.Event().wait()

    def flow() -> Flow[None]:
        try:
            yield from step(lambda: None, forever)
        finally:
            world.calls.append("cleaned")

    abandoned = arun(flow())
    abandoned.send(None)
    abandoned.close()
    assert world.calls == ["cleaned"]


async def test_a_pause_is_a_step_like_any_other():
    run(pause(0))
    await arun(pause(0))


async def test_an_unbroken_flow_goes_on_when_whoever_awaits_it_is_cancelled():
    world, may_go_on, late = World(), asyncio.Event(), asyncio.Queue[int]()

    def doubled() -> Flow[int]:
        yield from step(lambda: None, may_go_on.wait)
        return (yield from step(world.double, world.adouble, 4))

    def told(ended: asyncio.Future[int]) -> None:
        late.put_nowait(ended.result())

    def outer() -> Flow[int]:
        return (yield from unbroken(doubled, told))

    assert run(outer()) == 8
    asking = asyncio.create_task(arun(outer()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    may_go_on.set()
    assert await late.get() == 8
    assert await arun(outer()) == 8
    assert late.empty()
    assert world.calls == ["double", "adouble", "adouble"]
