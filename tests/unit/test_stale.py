"""Stale while revalidate: one asks the model anew, the others are served the old answer and never wait."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FakeLimiter, FlakyStore
from flights import COST, settled
from hypothesis import given, settings
from hypothesis import strategies as st
from interleaved import interleaved
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    Dispatcher,
    Lifetime,
    LimitExceeded,
    Match,
    MemoryStore,
    Query,
    SemanticCache,
    StoreError,
    Threshold,
    Ticket,
    Usage,
)
from dispatch_core.refresh import Refreshes

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
FAR = Query("how do I boil an egg")
LIFE = Lifetime(100, jitter=0, stale=50)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def limiter() -> FakeLimiter:
    return FakeLimiter()


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
async def dispatcher(store, embedder, limiter, clock, form):
    """It holds one answer, which has just become stale."""
    cache = SemanticCache(embedder, store, policy=Threshold(0.5), ttl=LIFE, clock=clock)
    either = Either(Dispatcher(cache, limiter, clock=clock, flight_timeout=20), form)
    await either.finish(either.target.unlooked(QUERY), b"old", Usage(3, 4))
    assert await either.flush(20)
    clock.now += 100
    yield either
    assert await either.flush(20)


async def _served(dispatcher: Either, query: Query = QUERY) -> bytes:
    found = await dispatcher.begin(query, COST)
    assert isinstance(found, Match)
    return found.entry.payload


async def test_before_it_is_stale_everybody_is_served(dispatcher, clock):
    clock.now -= 0.01
    assert {await _served(dispatcher) for _ in range(3)} == {b"old"}


@pytest.mark.parametrize("query", [QUERY, NEAR], ids=["same words", "other words"])
async def test_the_first_asks_the_model_and_the_others_are_served_the_old_answer(dispatcher, limiter, query):
    ticket = await dispatcher.begin(query, COST)
    assert isinstance(ticket, Ticket)
    assert (ticket.stale.entry.payload, ticket.miss.reason) == (b"old", "stale")
    assert ticket.reservation in limiter.given
    for other in (QUERY, NEAR, QUERY):
        assert await _served(dispatcher, other) == b"old"
    await dispatcher.finish(ticket, b"new", Usage(5, 6))
    assert await dispatcher.flush(20)
    for other in (QUERY, NEAR, QUERY):
        assert await _served(dispatcher, other) == b"new"
    stats = dispatcher.target.stats()
    assert (stats.misses, stats.hits, stats.stored, stats.failures) == (1, 6, 2, 0)


async def test_the_new_answer_is_found_by_meaning_and_lives_anew(dispatcher, clock):
    await dispatcher.finish(await dispatcher.begin(QUERY), b"new")
    assert await dispatcher.flush(20)
    clock.now += 99
    assert await _served(dispatcher, NEAR) == b"new"
    clock.now += 1
    assert isinstance(await dispatcher.begin(NEAR), Ticket)


async def test_a_refresher_with_other_words_replaces_the_old_entry(dispatcher, store):
    await dispatcher.finish(await dispatcher.begin(NEAR), b"new")
    assert await dispatcher.flush(20)
    assert len(store) == 1
    assert await _served(dispatcher, QUERY) == b"new"


async def test_a_refresher_of_another_tenant_is_none(dispatcher):
    theirs = Query(QUERY.text, namespace="theirs")
    ticket = await dispatcher.begin(theirs)
    assert ticket.stale is None
    await dispatcher.finish(ticket, b"theirs")
    assert await dispatcher.flush(20)
    assert (await dispatcher.begin(QUERY)).stale.entry.payload == b"old"


async def test_who_gives_up_lets_the_next_refresh(dispatcher):
    for _ in range(3):
        ticket = await dispatcher.begin(QUERY)
        assert ticket.stale is not None
        assert await _served(dispatcher) == b"old"
        dispatcher.target.abort(ticket)


async def test_an_answer_not_worth_storing_lets_the_next_refresh(dispatcher):
    for _ in range(3):
        ticket = await dispatcher.begin(QUERY)
        assert ticket.stale is not None
        await dispatcher.finish(ticket, None)
    assert dispatcher.target.stats().not_stored == 3


async def test_who_is_refused_by_the_limiter_is_served_the_old_answer_and_lets_the_next_refresh(dispatcher, limiter):
    limiter.error = LimitExceeded("full", 3.0)
    before = dispatcher.target.stats()
    for _ in range(3):
        assert (await dispatcher.begin(QUERY, COST)).entry.payload == b"old"
    stats = dispatcher.target.stats()
    assert (stats.hits - before.hits, stats.misses - before.misses) == (3, 0)
    limiter.error = None
    assert isinstance(await dispatcher.begin(QUERY, COST), Ticket)


async def test_who_takes_too_long_is_followed_by_another(dispatcher, clock):
    slow = await dispatcher.begin(QUERY)
    clock.now += 19.9
    assert await _served(dispatcher) == b"old"
    clock.now += 0.1
    other = await dispatcher.begin(QUERY)
    assert other.stale is not None
    assert await _served(dispatcher) == b"old"
    await dispatcher.finish(other, b"new")
    await dispatcher.finish(slow, b"newer")
    assert await dispatcher.flush(20)
    assert await _served(dispatcher) == b"newer"


async def test_an_expired_answer_is_never_served(dispatcher, clock):
    refresher = await dispatcher.begin(QUERY)
    clock.now += 49.9
    dispatcher.target.abort(refresher)
    refresher = await dispatcher.begin(QUERY)
    assert await _served(dispatcher) == b"old"
    clock.now += 0.1
    for query in (QUERY, NEAR):
        found = await dispatcher.begin(query)
        assert (found.stale, found.miss.reason) == (None, "empty")
        dispatcher.target.abort(found)
    dispatcher.target.abort(refresher)


async def test_a_failed_write_keeps_the_old_answer_and_lets_the_next_refresh(dispatcher, store, clock):
    store.breaks, store.error = {"put"}, StoreError("down")
    await dispatcher.finish(await dispatcher.begin(NEAR), b"new")
    assert await dispatcher.flush(20)
    store.error = None
    assert (await dispatcher.begin(QUERY)).stale.entry.payload == b"old"


async def test_while_the_new_answer_is_written_nobody_else_refreshes(dispatcher, store):
    ticket = await dispatcher.begin(NEAR)
    gate, put = threading.Event(), store.put

    def held(entry, vector):
        gate.wait(60)
        put(entry, vector)

    store.put = held
    await dispatcher.finish(ticket, b"new")
    assert await _served(dispatcher, NEAR) == b"new"
    assert await _served(dispatcher, QUERY) == b"old"
    gate.set()
    assert await dispatcher.flush(20)
    assert await _served(dispatcher, QUERY) == b"new"


async def test_each_entry_has_its_own_refresher(dispatcher, clock):
    clock.now -= 100
    await dispatcher.finish(dispatcher.target.unlooked(FAR), b"old too")
    assert await dispatcher.flush(20)
    clock.now += 100
    assert isinstance(await dispatcher.begin(QUERY), Ticket)
    assert isinstance(await dispatcher.begin(FAR), Ticket)
    assert await _served(dispatcher, QUERY) == b"old"
    assert await _served(dispatcher, FAR) == b"old too"


async def test_in_the_shadow_nothing_is_refreshed(store, clock, form, dispatcher):
    cache = SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5), ttl=LIFE, clock=clock, shadow=True)
    shadow = Either(Dispatcher(cache, clock=clock), form)
    found = await shadow.begin(QUERY)
    assert (found.stale, found.miss.reason) == (None, "shadow")


# At the same moment


def test_of_a_hundred_tasks_one_refreshes_and_nobody_waits_for_it():
    async def main() -> None:
        clock = Clock(1_000.0)
        embedder = CountingEmbedder()
        cache = SemanticCache(embedder, MemoryStore(), policy=Threshold(0.5), ttl=LIFE, clock=clock)
        dispatcher = Dispatcher(cache, clock=asyncio.get_running_loop().time)
        await dispatcher.afinish(dispatcher.unlooked(QUERY), b"old")
        clock.now += 100
        start = virtual_now()

        async def ask(number: int) -> tuple[bytes, float]:
            found = await dispatcher.abegin((QUERY, NEAR)[number % 2])
            if isinstance(found, Match):
                return found.entry.payload, virtual_now() - start
            await asyncio.sleep(5)
            await dispatcher.afinish(found, b"new")
            return b"new", virtual_now() - start

        answers = await asyncio.gather(*map(ask, range(100)))
        assert [payload for payload, _ in answers].count(b"new") == 1
        assert all(waited < 0.1 for payload, waited in answers if payload == b"old")
        assert dispatcher.stats().misses == 1
        assert (await dispatcher.abegin(QUERY)).entry.payload == b"new"

    in_virtual_time(main())


def test_who_waits_on_the_flight_of_the_refresher_is_served_at_once():
    async def main() -> None:
        clock, store = Clock(1_000.0), FlakyStore()
        cache = SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5), ttl=LIFE, clock=clock)
        dispatcher = Dispatcher(cache, clock=asyncio.get_running_loop().time)
        await dispatcher.afinish(dispatcher.unlooked(QUERY), b"old")
        assert dispatcher.flush(20)
        clock.now += 100
        looked, aget = asyncio.Event(), store.aget

        async def slow(id, *, now):
            await looked.wait()
            return await aget(id, now=now)

        store.aget = slow
        tasks = [asyncio.create_task(dispatcher.abegin(QUERY)) for _ in range(10)]
        await settled()
        # All of them but the first wait for its lookup.
        assert sum(len(flight.waiting) for flight in dispatcher._flights._table.values()) == 9
        looked.set()
        found = await asyncio.gather(*tasks)
        assert isinstance(found[0], Ticket)
        assert [answer.entry.payload for answer in found[1:]] == [b"old"] * 9
        dispatcher.abort(found[0])
        assert len(dispatcher._refreshes) == 0

    in_virtual_time(main())


def test_of_many_threads_one_refreshes():
    clock = Clock(1_000.0)
    cache = SemanticCache(CountingEmbedder(), MemoryStore(), policy=Threshold(0.5), ttl=LIFE, clock=clock)
    dispatcher = Dispatcher(cache)
    dispatcher.finish(dispatcher.unlooked(QUERY), b"old")
    clock.now += 100
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda number: dispatcher.begin((QUERY, NEAR)[number % 2]), range(64)))
    assert sum(isinstance(one, Ticket) for one in found) == 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), max_size=8))
def test_of_two_who_find_a_refresh_too_old_one_takes_over(stretches):
    clock = Clock()
    refreshes = Refreshes(timeout=10, clock=clock)
    assert refreshes.take("entry")
    clock.now = 10
    jobs = (lambda: refreshes.take("entry"), lambda: refreshes.take("entry"))
    taken, _ = interleaved(jobs, ("refresh.py",), stretches)
    assert sorted(taken) == [False, True]


def test_a_refresh_that_ended_is_forgotten():
    refreshes = Refreshes(timeout=10, clock=Clock())
    assert [refreshes.take("a"), refreshes.take("a"), refreshes.take("b"), len(refreshes)] == [True, False, True, 2]
    refreshes.end("a")
    refreshes.end("never taken")
    assert [refreshes.take("a"), len(refreshes)] == [True, 2]
    refreshes.start_anew()
    assert len(refreshes) == 0
