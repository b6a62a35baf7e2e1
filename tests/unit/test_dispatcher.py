"""The dispatcher: it serves, reserves, settles and stores, and a broken cache never fails a call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FakeLimiter, FlakyStore

from dispatch_core import (
    ConfigError,
    Cost,
    Dispatcher,
    EmbeddingError,
    LimitExceeded,
    Match,
    MemoryStore,
    Query,
    RequestTooLarge,
    SemanticCache,
    StoreError,
    Threshold,
    Ticket,
    Usage,
)
from dispatch_core._flow import Flow, pause

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
COST = Cost(10, 20)
PROMPT = "the secret of the prompt"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def cache(store, embedder) -> SemanticCache:
    return SemanticCache(embedder, store, policy=Threshold(0.5))


@pytest.fixture
def limiter() -> FakeLimiter:
    return FakeLimiter()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def dispatcher(cache, limiter, clock, form) -> AsyncIterator[Either]:
    either = Either(Dispatcher(cache, limiter, clock=clock), form)
    yield either
    assert await either.flush(20)


async def _answer(dispatcher: Either, query: Query = QUERY, payload: bytes | None = b"answer") -> Ticket:
    """Ask the model, that is: begin and finish."""
    ticket = await dispatcher.begin(query, COST)
    assert isinstance(ticket, Ticket)
    await dispatcher.finish(ticket, payload, Usage(3, 4))
    return ticket


# Begin, finish, abort


async def test_what_was_finished_is_served(dispatcher):
    await _answer(dispatcher)
    assert await dispatcher.flush()
    exact, near = await dispatcher.begin(QUERY), await dispatcher.begin(NEAR)
    assert (exact.kind, exact.entry.payload) == ("exact", b"answer")
    assert (near.kind, near.entry.payload) == ("semantic", b"answer")
    stats = dispatcher.target.stats()
    assert (stats.exact_hits, stats.semantic_hits, stats.misses, stats.stored) == (1, 1, 1, 1)
    assert (stats.saved, stats.spent) == (Usage(6, 8), Usage(3, 4))


async def test_a_miss_embeds_once_until_it_is_stored(dispatcher, embedder):
    await _answer(dispatcher)
    assert await dispatcher.flush()
    assert embedder.texts == [QUERY.text]


async def test_a_miss_reserves_and_finishing_settles(dispatcher, limiter):
    ticket = await _answer(dispatcher)
    assert limiter.given == [ticket.reservation]
    assert (ticket.reservation.cost, ticket.reservation.fate) == (COST, [("settled", Usage(3, 4))])


async def test_a_hit_reserves_nothing(dispatcher, limiter):
    await _answer(dispatcher)
    assert isinstance(await dispatcher.begin(QUERY, COST), Match)
    assert len(limiter.given) == 1


async def test_without_a_cost_nothing_is_reserved(dispatcher, limiter):
    assert (await dispatcher.begin(QUERY)).reservation is None
    assert limiter.given == []


async def test_a_price_is_asked_for_when_the_model_must_be_asked_and_not_for_a_hit(dispatcher, limiter):
    asked = []

    def pricing() -> Flow[Cost]:
        yield from pause(0.0)
        asked.append(COST)
        return COST

    ticket = await dispatcher.begin(QUERY, pricing)
    assert [reservation.cost for reservation in limiter.given] == asked == [COST]
    await dispatcher.finish(ticket, b"answer")
    await dispatcher.flush()
    assert isinstance(await dispatcher.begin(QUERY, pricing), Match)
    assert len(asked) == 1


async def test_a_price_that_fails_reaches_the_caller_and_holds_nobody_up(dispatcher, limiter):
    def pricing() -> Flow[Cost]:
        yield from pause(0.0)
        raise ConfigError("no price")

    with pytest.raises(ConfigError, match="no price"):
        await dispatcher.begin(QUERY, pricing)
    assert not limiter.given
    assert isinstance(await dispatcher.begin(QUERY, COST), Ticket)


async def test_without_a_limiter_a_price_is_asked_for_all_the_same(cache, form):
    asked = []

    def pricing() -> Flow[None]:
        yield from pause(0.0)
        asked.append(True)

    assert (await Either(Dispatcher(cache), form).begin(QUERY, pricing)).reservation is None
    assert asked


async def test_the_timeout_is_the_limiters(dispatcher, limiter):
    await dispatcher.begin(QUERY, COST, timeout=2.5)
    assert limiter.timeouts == [2.5]


@pytest.mark.parametrize("error", [LimitExceeded("full", 3.0), RequestTooLarge(9, 5)])
async def test_a_refusal_of_the_limiter_reaches_the_caller(dispatcher, limiter, error):
    limiter.error = error
    with pytest.raises(type(error)):
        await dispatcher.begin(QUERY, COST)
    assert dispatcher.target.stats().failures == 0


@pytest.mark.parametrize(("sent", "fate"), [(True, ("settled", None)), (False, "cancelled")])
async def test_an_aborted_call_stores_nothing(dispatcher, store, sent, fate):
    ticket = await dispatcher.begin(QUERY, COST)
    dispatcher.target.abort(ticket, sent=sent)
    assert ticket.reservation.fate == [fate]
    assert len(store) == 0


async def test_an_answer_not_worth_storing_is_settled_and_not_stored(dispatcher, store):
    ticket = await _answer(dispatcher, payload=None)
    assert ticket.reservation.fate == [("settled", Usage(3, 4))]
    assert len(store) == 0
    assert dispatcher.target.stats().not_stored == 1


async def test_an_answer_from_elsewhere_may_be_stored(dispatcher):
    await dispatcher.finish(dispatcher.target.unlooked(QUERY), b"from elsewhere")
    assert await dispatcher.flush()
    assert (await dispatcher.begin(NEAR)).entry.payload == b"from elsewhere"


async def test_calls_past_the_cache_are_counted(dispatcher):
    dispatcher.target.bypassed()
    assert dispatcher.target.stats().bypassed == 1


async def test_each_part_is_optional(form, cache, limiter):
    bare = Either(Dispatcher(), form)
    ticket = await bare.begin(QUERY, COST)
    assert (ticket.miss, ticket.reservation) == (None, None)
    await bare.finish(ticket, b"answer", Usage(1, 1))
    bare.target.abort(await bare.begin(QUERY, COST))
    await bare.clear()
    await bare.close()
    only_limits = Either(Dispatcher(limiter=limiter), form)
    assert (await _answer(only_limits)).reservation.fate == [("settled", Usage(3, 4))]
    assert only_limits.target.unlooked(QUERY).miss is None
    only_caches = Either(Dispatcher(cache), form)
    await _answer(only_caches)
    assert isinstance(await only_caches.begin(QUERY, COST), Match)
    await only_caches.close()


def test_an_unknown_way_to_handle_errors_is_refused():
    with pytest.raises(ConfigError, match="on_error"):
        Dispatcher(on_error="ignore")


async def test_clear_forgets_answers_that_are_still_being_written(dispatcher):
    await _answer(dispatcher)
    await dispatcher.clear()
    assert isinstance(await dispatcher.begin(QUERY), Ticket)


async def test_who_clears_learns_of_a_failure(dispatcher, store):
    store.error = StoreError("down")
    with pytest.raises(StoreError):
        await dispatcher.clear("ours")


# Failing open


@pytest.mark.parametrize("error", [StoreError("down"), EmbeddingError("down"), ValueError("a bug"), OSError("gone")])
@pytest.mark.parametrize("name", ["get", "search", "put"])
async def test_a_broken_cache_is_a_miss(dispatcher, store, error, name):
    store.breaks, store.error = {name}, error
    ticket = await _answer(dispatcher)
    assert await dispatcher.flush()
    assert ticket.reservation.fate == [("settled", Usage(3, 4))]
    stats = dispatcher.target.stats()
    assert stats.misses == 1
    assert stats.failures >= 1
    assert stats.stored + stats.not_stored == 1


async def test_a_broken_embedder_is_a_miss(dispatcher, embedder, store):
    embedder.error = EmbeddingError("down")
    await _answer(dispatcher)
    assert await dispatcher.flush()
    assert dispatcher.target.stats().failures == 2
    assert len(store) == 0


async def test_an_answer_whose_lookup_failed_is_still_stored(dispatcher, store):
    store.breaks, store.error = {"get"}, StoreError("down")
    ticket = await dispatcher.begin(QUERY)
    store.error = None
    await dispatcher.finish(ticket, b"answer")
    assert await dispatcher.flush()
    assert (await dispatcher.begin(NEAR)).entry.payload == b"answer"


async def test_each_change_of_state_is_logged_once(dispatcher, store, clock, caplog):
    caplog.set_level(logging.DEBUG, "dispatch_core")
    store.error = StoreError("down")
    for _ in range(20):
        await dispatcher.begin(QUERY)
    for _ in range(5):
        clock.now += 60
        await dispatcher.begin(QUERY)
    store.error = None
    clock.now += 60
    for _ in range(5):
        await dispatcher.begin(QUERY)
    assert [record.message for record in caplog.records] == [
        "the cache failed, calls go on without it: StoreError: down",
        "the cache is paused, calls go on without it: StoreError: down",
        "the cache works again",
    ]
    assert dispatcher.target.stats().failures == 25


async def test_a_failing_store_is_left_alone_and_asked_again_later(dispatcher, store, clock):
    store.error = StoreError("down")
    for _ in range(10):
        await dispatcher.begin(QUERY)
    assert store.asked == 3
    assert dispatcher.target.paused
    clock.now = 0.99
    await dispatcher.begin(QUERY)
    assert store.asked == 3
    clock.now = 1.0
    for _ in range(3):
        await dispatcher.begin(QUERY)
    assert store.asked == 4
    store.error = None
    clock.now = 3.0
    await _answer(dispatcher)
    assert not dispatcher.target.paused
    assert isinstance(await dispatcher.begin(QUERY), Match)


@pytest.mark.parametrize("name", ["get", "search", "put"])
async def test_with_raise_the_errors_of_the_cache_reach_the_caller(cache, store, limiter, form, name):
    dispatcher = Either(Dispatcher(cache, limiter, on_error="raise"), form)
    store.breaks, store.error = {name}, StoreError("down")
    for _ in range(5):
        with pytest.raises(StoreError, match="down"):
            await _answer(dispatcher)
    assert dispatcher.target.stats().failures == 5
    assert all(reservation.fate for reservation in limiter.given)


@pytest.mark.parametrize("on_error", ["miss", "raise"])
async def test_no_prompt_is_ever_logged(cache, store, form, caplog, on_error):
    caplog.set_level(logging.DEBUG)
    dispatcher = Either(Dispatcher(cache, on_error=on_error), form)
    store.error = ValueError(f"cannot read {PROMPT!r}")
    for _ in range(5):
        try:
            await _answer(dispatcher, Query(PROMPT))
        except ValueError:
            assert on_error == "raise"
        assert await dispatcher.flush()
    assert PROMPT not in caplog.text
    assert ("ValueError" in caplog.text) is (on_error == "miss")


async def test_a_cancelled_lookup_is_not_a_failure(cache, store):
    entered = asyncio.Event()

    async def forever(id, *, now):
        entered.set()
        await asyncio.Event().wait()

    store.aget = forever
    dispatcher = Dispatcher(cache)
    task = asyncio.create_task(dispatcher.abegin(QUERY))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dispatcher.stats().failures == 0


# Writing behind


@pytest.fixture
def held(store):
    """Writes wait until the test sets the event."""
    gate = threading.Event()
    put = store.put

    def slow(entry, vector):
        gate.wait()
        put(entry, vector)

    store.put = slow
    yield gate
    gate.set()


async def test_finishing_does_not_wait_for_the_store(dispatcher, store, held):
    await _answer(dispatcher)
    assert len(store) == 0
    assert await dispatcher.flush(0) is False
    held.set()
    assert await dispatcher.flush() is True
    assert len(store) == 1


async def test_a_lookup_sees_what_this_dispatcher_has_written(dispatcher):
    for number in range(50):
        query = Query(f"{number}", semantic=False)
        await _answer(dispatcher, query)
        assert isinstance(await dispatcher.begin(query), Match)


async def test_the_same_question_finds_an_answer_still_being_written(dispatcher, store, held):
    await _answer(dispatcher)
    match = await dispatcher.begin(QUERY)
    assert (match.kind, match.entry.payload) == ("exact", b"answer")
    assert isinstance(await dispatcher.begin(Query(QUERY.text, namespace="theirs")), Ticket)
    assert len(store) == 0


async def test_an_answer_whose_writing_failed_is_not_served(dispatcher, store):
    store.breaks, store.error = {"put"}, StoreError("down")
    await _answer(dispatcher)
    assert await dispatcher.flush()
    assert isinstance(await dispatcher.begin(QUERY), Ticket)


async def test_a_store_in_memory_is_written_at_once(embedder, form):
    store = MemoryStore()
    dispatcher = Either(Dispatcher(SemanticCache(embedder, store, policy=Threshold(0.5))), form)
    await _answer(dispatcher)
    assert len(store) == 1
    assert (await dispatcher.begin(NEAR)).kind == "semantic"


async def test_closing_finishes_the_writes(cache, store, form):
    dispatcher = Either(Dispatcher(cache), form)
    await _answer(dispatcher)
    await dispatcher.close()
    assert len(store) == 1


async def test_without_writing_behind_the_answer_is_stored_at_once(cache, store, form):
    dispatcher = Either(Dispatcher(cache, write_behind=False), form)
    await _answer(dispatcher)
    assert len(store) == 1
    assert await dispatcher.flush() is True
    store.error = StoreError("down")
    await _answer(dispatcher, Query("another"))
    assert dispatcher.target.stats().not_stored == 1


async def test_a_failing_write_does_not_stop_the_next(dispatcher, store):
    store.breaks, store.error = {"put"}, ValueError("a bug")
    await _answer(dispatcher)
    assert await dispatcher.flush()
    store.error = None
    await _answer(dispatcher)
    assert await dispatcher.flush()
    assert len(store) == 1


def test_one_dispatcher_serves_threads_and_loops_at_once(cache, limiter):
    dispatcher = Dispatcher(cache, limiter)

    def work(number: int) -> None:
        query = Query(f"question {number % 7}", semantic=False)
        found = dispatcher.begin(query, COST) if number % 2 else asyncio.run(dispatcher.abegin(query, COST))
        if isinstance(found, Ticket):
            dispatcher.finish(found, query.text.encode(), Usage(1, 1))
        else:
            assert found.entry.payload == query.text.encode()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.flush()
    stats = dispatcher.stats()
    assert stats.lookups == 28
    assert stats.stored == stats.misses == len(limiter.given)
    dispatcher.close()
