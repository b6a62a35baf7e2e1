"""In the shadow everything is decided and compared, and nothing is served."""

from __future__ import annotations

import asyncio
import threading

import pytest
from fakes import FORMS, CountingEmbedder, Either, FakeLimiter, FlakyStore
from flights import COST

from dispatch_core import (
    Curve,
    Dispatcher,
    ErrorBounded,
    Match,
    MemoryStore,
    Miss,
    Query,
    SemanticCache,
    StoreError,
    Threshold,
    Ticket,
)
from dispatch_core.curve import STEPS
from dispatch_core.interval import clopper_pearson

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
FAR = Query("how do I boil an egg")


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
def shadow(store, embedder, form) -> Either:
    return Either(SemanticCache(embedder, store, policy=Threshold(0.5), shadow=True), form)


@pytest.fixture
def lit(store, embedder, form) -> Either:
    """A cache that serves, on the same store."""
    return Either(SemanticCache(embedder, store, policy=Threshold(0.5)), form)


@pytest.fixture
async def dispatcher(shadow, form):
    either = Either(Dispatcher(shadow.target, FakeLimiter()), form)
    yield either
    assert await either.flush(20)


async def _asked(dispatcher: Either, query: Query, payload: bytes) -> Ticket:
    ticket = await dispatcher.begin(query, COST)
    assert isinstance(ticket, Ticket)
    await dispatcher.finish(ticket, payload)
    assert await dispatcher.flush(20)
    return ticket


# Nothing is served


@pytest.mark.parametrize(
    ("query", "path"), [(QUERY, "exact"), (NEAR, "above-threshold")], ids=["same words", "other words"]
)
async def test_a_hit_is_decided_and_not_served(shadow, query, path):
    await shadow.store(shadow.target.unseen(QUERY), b"answer")
    miss = await shadow.lookup(query)
    assert isinstance(miss, Miss)
    assert (miss.reason, miss.decision.hit, miss.decision.path) == ("shadow", None, path)
    assert miss.decision.candidate.entry.payload == b"answer"


async def test_a_miss_in_the_shadow_is_the_miss_that_it_would_be_otherwise(shadow):
    assert (await shadow.lookup(QUERY)).reason == "empty"
    await shadow.store(shadow.target.unseen(QUERY), b"answer")
    assert (await shadow.lookup(FAR)).reason == "below-threshold"


async def test_an_answer_that_is_being_written_is_not_served(dispatcher, store):
    gate = threading.Event()
    store.put = lambda entry, vector: gate.wait(60)
    await dispatcher.finish(await dispatcher.begin(QUERY), b"answer")
    assert isinstance(await dispatcher.begin(QUERY), Ticket)
    gate.set()


async def test_nobody_waits_for_another_in_the_shadow(shadow):
    dispatcher = Dispatcher(shadow.target)
    tickets = [await asyncio.create_task(dispatcher.abegin(query)) for query in (QUERY, QUERY, NEAR)]
    assert all(isinstance(ticket, Ticket) for ticket in tickets)
    for ticket in tickets:
        dispatcher.finish(ticket, b"answer")
    assert dispatcher.flush(20)
    assert dispatcher.stats().hits == 0


async def test_every_call_in_the_shadow_has_a_place_in_the_quota(dispatcher):
    for query in (QUERY, QUERY, NEAR):
        await _asked(dispatcher, query, b"answer")
    assert len(dispatcher.target.limiter.given) == 3
    assert dispatcher.target.stats().misses == 3


# Nothing is lost


@pytest.mark.parametrize("query", [QUERY, NEAR], ids=["same words", "other words"])
async def test_what_is_stored_again_in_the_shadow_is_still_found_by_meaning(shadow, lit, query):
    for payload in (b"old", b"new"):
        await shadow.store(await shadow.lookup(query), payload)
    other = Query("how to reset the password")
    found = await lit.lookup(other)
    assert (found.kind, found.entry.payload) == ("semantic", b"new")


async def test_a_would_be_hit_on_other_words_is_embedded_once(shadow, embedder):
    await shadow.store(shadow.target.unseen(QUERY), b"answer")
    await shadow.store(await shadow.lookup(NEAR), b"answer")
    assert embedder.texts == [QUERY.text, NEAR.text]


# What is compared is counted


async def test_the_answers_are_compared_and_counted(dispatcher):
    await _asked(dispatcher, QUERY, b"Yes.")
    assert dispatcher.target.stats().wrong_hits is None
    await _asked(dispatcher, QUERY, b"yes")
    await _asked(dispatcher, NEAR, b"yes")
    await _asked(dispatcher, NEAR, b"No, never.")
    await _asked(dispatcher, FAR, b"Ten minutes.")
    stats = dispatcher.target.stats()
    assert (stats.checked, stats.checked_wrong, stats.hits) == (3, 1, 0)
    assert stats.wrong_hits == (pytest.approx(1 / 3), *clopper_pearson(1, 3))


async def test_an_answer_that_does_not_come_is_not_compared(dispatcher):
    await _asked(dispatcher, QUERY, b"answer")
    dispatcher.target.abort(await dispatcher.begin(QUERY))
    await dispatcher.finish(await dispatcher.begin(QUERY), None)
    assert dispatcher.target.stats().checked == 0


async def test_an_answer_is_compared_even_if_it_cannot_be_stored(dispatcher, store):
    await _asked(dispatcher, QUERY, b"answer")
    store.breaks, store.error = {"put"}, StoreError("down")
    await _asked(dispatcher, NEAR, b"another")
    stats = dispatcher.target.stats()
    assert (stats.checked, stats.checked_wrong, stats.not_stored) == (1, 1, 1)


async def test_the_comparison_is_the_policys_own(embedder, store, form):
    policy = Threshold(0.5, same=lambda one, other: True)
    dispatcher = Either(Dispatcher(SemanticCache(embedder, store, policy=policy, shadow=True)), form)
    await _asked(dispatcher, QUERY, b"this")
    await _asked(dispatcher, NEAR, b"that")
    assert (dispatcher.target.stats().checked, dispatcher.target.stats().checked_wrong) == (1, 0)


def test_a_share_of_wrong_hits_lies_within_its_interval():
    dispatcher = Dispatcher(SemanticCache(CountingEmbedder(), MemoryStore(), policy=Threshold(0.5), shadow=True))
    for number in range(40):
        dispatcher.finish(dispatcher.begin(QUERY), b"wrong" if number % 4 == 3 else b"right")
    share, low, high = dispatcher.stats().wrong_hits
    assert 0 < low < share < high < 1
    assert f"[{low:.1%}, {high:.1%}] of 39 checked" in str(dispatcher.stats())


# A policy that checks itself


def _sure() -> ErrorBounded:
    """It serves all that is near, and checks every other hit."""
    curve = Curve("made up", {"above-threshold": [1e-6] * STEPS})
    policy = ErrorBounded(0.1, Threshold(0.8), check=0.5, curve=curve)
    evidence = '{"above-threshold": {"seen": %s, "labels": %s, "wrong": %s}}'
    counts = f"[{', '.join(['9'] * STEPS)}]"
    return policy.learned(evidence % (counts, counts, counts.replace("9", "0")))


async def test_the_checks_of_a_learning_policy_are_counted_alike(store, form):
    dispatcher = Either(Dispatcher(SemanticCache(CountingEmbedder(), store, policy=_sure())), form)
    await _asked(dispatcher, QUERY, b"answer")
    wordings = [Query(f"{QUERY.text} x{number}") for number in range(20)]
    checks = served = 0
    for query in wordings:
        found = await dispatcher.begin(query)
        if isinstance(found, Match):
            served += 1
            continue
        assert found.miss.reason == "checking"
        checks += 1
        await dispatcher.finish(found, b"answer" if checks % 2 else b"another")
        assert await dispatcher.flush(20)
        # Stored, it would be the nearest of the next ones.
        store.delete(found.miss.id)
    stats = dispatcher.target.stats()
    assert served > 0
    assert checks > 1
    assert (stats.checked, stats.checked_wrong) == (checks, checks // 2)
    assert stats.semantic_hits == served


async def test_what_was_checked_in_the_shadow_teaches_a_learning_policy(store, form):
    policy = ErrorBounded(base=Threshold(0.5))
    dispatcher = Either(Dispatcher(SemanticCache(CountingEmbedder(), store, policy=policy, shadow=True)), form)
    await _asked(dispatcher, QUERY, b"answer")
    for number in range(5):
        await _asked(dispatcher, Query(f"{QUERY.text} x{number}"), b"answer")
    assert policy.bounds()["above-threshold"].labels == 5
