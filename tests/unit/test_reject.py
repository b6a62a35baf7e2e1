"""A hit is taken back: its question is asked anew, others' answers stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import warnings
from dataclasses import replace

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FlakyStore
from flights import COST, virtual_world
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    Consensus,
    Dispatcher,
    ErrorBounded,
    Guarded,
    HashingEmbedder,
    Lifetime,
    Match,
    Query,
    SemanticCache,
    SQLiteStore,
    StoreError,
    Threshold,
    Ticket,
)
from dispatch_core.policy import Policy
from dispatch_core.recent import RecentHits

STORED = Query("how to reset my password")
ASKED = Query("how to change a password")
NEAR = Query("how to change a password now")
POLICIES: list[Policy] = [
    Threshold(0.3),
    Guarded(0.3, guards=()),
    Consensus(0.3, guards=()),
    Consensus(0.3, guards=(), supporters=2, neighbours=20),
]


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
def cache(store, embedder, form) -> Either:
    return Either(SemanticCache(embedder, store, policy=Threshold(0.3)), form)


async def _answered(cache: Either, query: Query, payload: bytes = b"old") -> None:
    await cache.store(cache.target.unseen(query), payload)


async def _payload(cache: Either, query: Query) -> bytes | None:
    found = await cache.lookup(query)
    return found.entry.payload if isinstance(found, Match) else None


# Taking back


async def test_an_exact_hit_is_taken_back(cache):
    await _answered(cache, STORED)
    hit = await cache.lookup(STORED)
    assert await cache.reject(hit.hit_id) is True
    miss = await cache.lookup(STORED)
    assert (miss.reason, miss.nearest.score) == ("rejected", pytest.approx(1))
    assert (await cache.lookup(Query("how to reset a password"))).reason == "rejected"
    await cache.store(miss, b"new")
    assert await _payload(cache, STORED) == b"new"
    assert await _payload(cache, Query("how to reset a password")) == b"new"


async def test_a_hit_on_other_words_is_taken_back_and_the_old_entry_serves_its_own_question(cache):
    await _answered(cache, STORED)
    hit = await cache.lookup(ASKED)
    assert hit.kind == "semantic"
    assert await cache.reject(hit.hit_id)
    assert (await cache.lookup(ASKED)).reason == "rejected"
    assert (await cache.lookup(NEAR)).reason == "rejected"
    assert await _payload(cache, STORED) == b"old"
    assert await _payload(cache, Query("how to reset my password please")) == b"old"
    await cache.store(await cache.lookup(ASKED), b"new")
    assert await _payload(cache, ASKED) == b"new"
    assert await _payload(cache, NEAR) == b"new"
    assert await _payload(cache, STORED) == b"old"


async def test_an_exact_only_question_is_taken_back_without_an_embedding(cache, embedder):
    query = replace(STORED, semantic=False)
    await _answered(cache, query)
    assert await cache.reject((await cache.lookup(query)).hit_id)
    assert (await cache.lookup(query)).reason == "exact-only"
    assert embedder.texts == []


@pytest.mark.parametrize("hit_id", ["", "unknown", "0-1"])
async def test_an_unknown_hit_is_not_taken_back(cache, store, hit_id):
    await _answered(cache, STORED)
    asked = store.asked
    assert await cache.reject(hit_id) is False
    assert store.asked == asked
    assert await _payload(cache, STORED) == b"old"


async def test_a_hit_is_taken_back_once(cache):
    await _answered(cache, STORED)
    hit = await cache.lookup(STORED)
    assert [await cache.reject(hit.hit_id), await cache.reject(hit.hit_id)] == [True, False]


async def test_every_hit_has_an_id_of_its_own(cache):
    await _answered(cache, STORED)
    ids = {(await cache.lookup(query)).hit_id for query in (STORED, STORED, ASKED)}
    assert len(ids - {""}) == 3


async def test_another_tenant_is_served_as_before(cache):
    theirs = replace(STORED, namespace="theirs")
    for query in (STORED, theirs):
        await _answered(cache, query)
    await cache.reject((await cache.lookup(STORED)).hit_id)
    assert await _payload(cache, STORED) is None
    assert await _payload(cache, theirs) == b"old"
    assert await _payload(cache, replace(ASKED, namespace="theirs")) == b"old"


async def test_who_failed_to_take_back_may_try_again(cache, store):
    await _answered(cache, STORED)
    hit = await cache.lookup(STORED)
    store.error = StoreError("down")
    with pytest.raises(StoreError):
        await cache.reject(hit.hit_id)
    store.error = None
    assert await cache.reject(hit.hit_id) is True
    assert await _payload(cache, STORED) is None


async def test_a_tombstone_carries_no_answer_and_goes_with_its_tags(cache, store):
    query = replace(STORED, tags=("passwords",))
    await _answered(cache, query)
    await cache.reject((await cache.lookup(query)).hit_id)
    tombstone = store.get(cache.target.unseen(query).id, now=0)
    assert (tombstone.payload, tombstone.tags, tombstone.tombstone) == (b"", ("passwords",), True)
    assert await cache.clear(tags=["passwords"]) == 1
    assert (await cache.lookup(query)).reason == "empty"


def test_the_oldest_of_many_hits_are_forgotten():
    hits, asked = RecentHits(), SemanticCache(None, FlakyStore()).unseen(STORED)
    ids = [hits.remember(asked) for _ in range(3_000)]
    assert hits.asked(ids[-1]) is asked
    assert hits.asked(ids[0]) is None
    assert 1_000 < sum(hits.forget(hit_id) for hit_id in ids) < 3_000


def test_a_forked_child_knows_no_hit_of_its_parent_and_gives_no_id_of_it_again():
    hits, asked = RecentHits(), SemanticCache(None, FlakyStore()).unseen(STORED)
    known = hits.remember(asked)
    with warnings.catch_warnings(), hits._lock:
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads: that is the point
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            with contextlib.suppress(BaseException):
                ids = {hits.remember(asked) for _ in range(5)}
                known_too = hits.asked(known) is not None or any(id.startswith(known[:8]) for id in ids)
                os._exit(1 if known_too else 7)
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert hits.asked(known) is asked


# What is rejected is never served


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy}"[:40])
@pytest.mark.parametrize("answers", [0, 1, 5])
async def test_no_policy_serves_a_tombstone(store, form, policy, answers):
    cache = Either(SemanticCache(HashingEmbedder(), store, policy=policy), form)
    for number in range(answers):
        await _answered(cache, Query(f"{STORED.text} x{number}"))
    await _answered(cache, ASKED)
    await cache.reject((await cache.lookup(ASKED)).hit_id)
    for query in (ASKED, NEAR, Query("how to change the password"), STORED):
        assert await _payload(cache, query) in (None, b"old")
    assert await _payload(cache, ASKED) is None
    assert await _payload(cache, NEAR) is None


async def test_a_learning_policy_neither_serves_a_tombstone_nor_learns_from_it(store, form):
    policy = ErrorBounded(0.5, base=Threshold(0.3), confidence=0.5, check=0.01)
    cache = Either(SemanticCache(HashingEmbedder(), store, policy=policy), form)
    await _answered(cache, STORED)
    await cache.reject((await cache.lookup(STORED)).hit_id)
    for number in range(200):
        miss = await cache.lookup(Query(f"{STORED.text} {number}"))
        assert (miss.reason, miss.decision.candidate) == ("rejected", None)
    assert policy.bounds() == {}


async def test_a_tombstone_survives_in_a_file(tmp_path, form):
    def opened() -> Either:
        return Either(SemanticCache(HashingEmbedder(), SQLiteStore(tmp_path / "a.db"), policy=Threshold(0.3)), form)

    first = opened()
    await _answered(first, STORED)
    await first.reject((await first.lookup(ASKED)).hit_id)
    await first.close()
    second = opened()
    assert (await second.lookup(ASKED)).reason == "rejected"
    assert (await second.lookup(NEAR)).reason == "rejected"
    assert await _payload(second, STORED) == b"old"
    await second.close()
    with sqlite3.connect(tmp_path / "a.db") as file:
        assert file.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    file.close()


@pytest.mark.parametrize("settings", [{"jitter": 0.5}, {"jitter": 0.5, "stale": 50.0}, {"max_age": 1_000.0}])
async def test_a_tombstone_outlives_the_answer_that_it_forbids(store, form, settings):
    clock = Clock(1_000.0)
    lifetime = Lifetime(100, **settings)
    cache = Either(SemanticCache(HashingEmbedder(), store, policy=Threshold(0.3), ttl=lifetime, clock=clock), form)

    def life(query: Query) -> float:
        return lifetime.ends(cache.target.unseen(query).id, 0.0)[1]

    stored = max((Query(f"how to reset my password x{number}") for number in range(20)), key=life)
    asked = min((Query(f"how to change a password x{number}") for number in range(20)), key=life)
    await _answered(cache, stored)
    clock.now += 1
    await cache.reject((await cache.lookup(asked)).hit_id)
    while isinstance(await cache.lookup(stored), Match):
        assert await _payload(cache, asked) is None
        clock.now += 7
    assert clock.now > 1_090


# Through the dispatcher


@pytest.fixture
async def dispatcher(cache, form):
    either = Either(Dispatcher(cache.target), form)
    yield either
    await either.flush(20)


async def _asked(dispatcher: Either, query: Query, payload: bytes) -> bytes:
    found = await dispatcher.begin(query, COST)
    if isinstance(found, Match):
        return found.entry.payload
    await dispatcher.finish(found, payload)
    await dispatcher.flush(20)
    return payload


async def test_rejections_are_counted(dispatcher):
    await _asked(dispatcher, STORED, b"old")
    hit = await dispatcher.begin(ASKED)
    assert [await dispatcher.reject(hit.hit_id), await dispatcher.reject(hit.hit_id)] == [True, False]
    assert dispatcher.target.stats().rejected == 1
    assert await _asked(dispatcher, ASKED, b"new") == b"new"
    assert await _asked(dispatcher, ASKED, b"unasked") == b"new"
    assert await _asked(dispatcher, STORED, b"unasked") == b"old"


async def test_without_a_cache_nothing_is_rejected(form):
    dispatcher = Either(Dispatcher(), form)
    assert await dispatcher.reject("1-1") is False
    assert dispatcher.target.stats().rejected == 0


async def test_who_takes_back_learns_of_a_failure(dispatcher, store):
    await _asked(dispatcher, STORED, b"old")
    hit = await dispatcher.begin(STORED)
    store.error = StoreError("down")
    with pytest.raises(StoreError):
        await dispatcher.reject(hit.hit_id)
    assert dispatcher.target.stats().rejected == 0


async def test_an_answer_still_on_its_way_to_the_store_is_taken_back_too(dispatcher, store):
    ticket = await dispatcher.begin(STORED)
    await dispatcher.finish(ticket, b"old")
    hit = await dispatcher.begin(STORED)
    assert await dispatcher.reject(hit.hit_id) is True
    await dispatcher.flush(20)
    assert isinstance(await dispatcher.begin(STORED), Ticket)


@pytest.mark.parametrize("asked", [STORED, NEAR], ids=["same words", "other words"])
def test_an_answer_that_came_from_a_flight_is_taken_back_like_any_other(asked):
    async def main() -> None:
        world = virtual_world(policy=Threshold(0.3))
        dispatcher = world.dispatcher
        ticket = await dispatcher.abegin(STORED)
        follower = asyncio.create_task(dispatcher.abegin(asked))
        await asyncio.sleep(1)
        await dispatcher.afinish(ticket, b"old")
        hit = await follower
        assert hit.kind == "flight"
        assert await dispatcher.areject(hit.hit_id) is True
        assert isinstance(await dispatcher.abegin(asked), Ticket)

    in_virtual_time(main())


def test_a_rejected_question_is_not_answered_by_a_flight_of_the_other_one():
    async def main() -> None:
        world = virtual_world(policy=Threshold(0.3))
        dispatcher = world.dispatcher
        world.otherwise = b"old"
        await world.aask(STORED)
        assert await dispatcher.areject((await dispatcher.abegin(ASKED)).hit_id)
        # The same question again, while nobody knows its answer.
        dispatcher.cache.stored_in.delete(dispatcher.cache.unseen(STORED).id)
        other = await asyncio.create_task(dispatcher.abegin(STORED))
        start = virtual_now()
        found = await asyncio.create_task(dispatcher.abegin(ASKED))
        assert isinstance(found, Ticket)
        assert virtual_now() - start < 0.1
        await dispatcher.afinish(other, b"old")
        await dispatcher.afinish(found, b"new")
        assert (await dispatcher.abegin(ASKED)).entry.payload == b"new"

    in_virtual_time(main())


async def test_a_rejected_question_is_not_served_what_its_encoder_cannot_tell_apart(store, embedder, form):
    cache = Either(SemanticCache(embedder, store, policy=Threshold(0.3)), form)
    await _answered(cache, Query("How to reset my password"), b"wrong")
    hit = await cache.lookup(Query("how to reset my password"))
    assert hit.score == pytest.approx(1.0)
    assert await cache.reject(hit.hit_id)
    assert (await cache.lookup(Query("how to reset my password"))).reason == "rejected"
    assert (await cache.lookup(Query("how to reset my PASSWORD"))).reason == "rejected"
    assert (await cache.lookup(Query("How to reset my password"))).entry.payload == b"wrong"


def test_thousands_of_long_questions_are_remembered_without_their_text():
    hits = RecentHits()
    long = Query("a" * 100_000)
    cache = SemanticCache(HashingEmbedder(), FlakyStore())
    hit_id = hits.remember(cache.unseen(long))
    kept = hits.asked(hit_id)
    assert len(kept.query.text) <= 1_000
    assert kept.id == cache.unseen(long).id
    assert not kept.query.semantic
