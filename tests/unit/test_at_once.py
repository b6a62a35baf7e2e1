"""Exact hits of a store that has them at hand are served at once, and are the hits that a lookup would come to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FlakyStore

from dispatch_core import (
    Dispatcher,
    Eligibility,
    EmbeddingError,
    Lifetime,
    Match,
    MemoryStore,
    Query,
    Rule,
    SemanticCache,
    Ticket,
    Usage,
)
from dispatch_core.cache import _remembered

QUERY = Query("How do I reset my password?", "scope", "tenant")
USAGE = Usage(10, 20)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def answered(store, query=QUERY, **settings) -> SemanticCache:
    cache = SemanticCache(CountingEmbedder(), store, **settings)
    cache.store(cache.unseen(query), b"answer", USAGE)
    return cache


async def test_a_hit_at_once_is_the_hit_of_a_lookup(form):
    at_hand, elsewhere = answered(MemoryStore(), clock=Clock()), answered(FlakyStore(), clock=Clock())
    one, other = [await Either(cache, form).lookup(QUERY) for cache in (at_hand, elsewhere)]
    assert at_hand.at_once(QUERY) is not None
    assert elsewhere.at_once(QUERY) is None
    assert replace(one, hit_id="") == replace(other, hit_id="")
    assert one.hit_id
    assert at_hand.reject(one.hit_id)


async def test_a_dispatcher_counts_it_and_embeds_nothing(form):
    cache = answered(MemoryStore())
    asked = len(cache.embedder.calls)
    dispatcher = Dispatcher(cache)
    for _ in range(3):
        assert isinstance(await Either(dispatcher, form).begin(replace(QUERY)), Match)
    assert len(cache.embedder.calls) == asked
    assert dispatcher.stats().exact_hits == 3
    assert dispatcher.stats().saved == Usage(30, 60)


@pytest.mark.parametrize("settings", [{"eligibility": Eligibility(rules=())}, {"shadow": True}])
async def test_what_is_not_to_be_served_is_not_served_at_once(form, settings):
    volatile = replace(QUERY, text="What time is it?")
    store = MemoryStore()
    answered(store, volatile, eligibility=Eligibility(volatile=None))
    cache = SemanticCache(CountingEmbedder(), store, **settings)
    assert cache.at_once(volatile) is None
    assert not isinstance(await Either(cache, form).lookup(volatile), Match)
    assert isinstance(await Either(Dispatcher(cache), form).begin(volatile), Ticket)


@pytest.mark.parametrize("ttl", [Lifetime(10.0, jitter=0, stale=10.0), Lifetime(10.0, jitter=0, max_age=100.0)])
def test_a_hit_that_has_consequences_takes_a_lookup(ttl):
    clock = Clock(1_000.0)
    cache = answered(MemoryStore(), ttl=ttl, clock=clock)
    clock.now += 9.0 if ttl.max_age else 11.0
    assert cache.at_once(QUERY) is None
    assert isinstance(cache.lookup(QUERY), Match)


def test_one_that_expired_is_gone():
    clock = Clock(1_000.0)
    cache = answered(MemoryStore(), ttl=10.0, clock=clock)
    clock.now += 11.0
    assert cache.at_once(QUERY) is None
    assert not isinstance(cache.lookup(QUERY), Match)


def test_a_question_is_another_one_as_soon_as_a_source_or_the_encoder_is():
    cache = answered(MemoryStore(), sources={"handbook": "1"})
    assert cache.at_once(QUERY) is not None
    cache.sources["handbook"] = "2"
    assert cache.at_once(QUERY) is None
    cache.sources["handbook"] = "1"
    assert cache.at_once(QUERY) is not None
    assert cache.at_once(replace(QUERY, sources=(("prices", "1"),))) is None
    cache.embedder = CountingEmbedder(64)
    assert cache.at_once(QUERY) is None


@pytest.mark.parametrize("other", [{"namespace": "other"}, {"scope": "other"}, {"text": "Another question"}])
def test_no_part_of_an_identity_is_left_out(other):
    cache = answered(MemoryStore())
    assert cache.at_once(replace(QUERY, **other)) is None
    assert SemanticCache(CountingEmbedder(), cache.stored_in, namespace_secret=b"secret").at_once(QUERY) is None


def test_tags_that_are_a_list_do_no_harm():
    cache = answered(MemoryStore())
    assert cache.at_once(replace(QUERY, tags=["passwords"])) is not None


def test_long_questions_are_not_remembered():
    cache = answered(MemoryStore(), replace(QUERY, text="long " * 1_000))
    known = _remembered.cache_info().currsize
    assert cache.at_once(replace(QUERY, text="long " * 1_000)) is not None
    assert _remembered.cache_info().currsize == known


async def test_exact_hits_outlive_an_encoder(form):
    cache = answered(MemoryStore())
    dispatcher = Either(Dispatcher(cache), form)
    cache.embedder.error = EmbeddingError("down")
    for number in range(5):
        dispatcher.target.abort(await dispatcher.begin(replace(QUERY, text=f"another question {number}")))
    assert isinstance(await dispatcher.begin(QUERY), Match)


def test_rules_of_eligibility_are_part_of_what_is_remembered():
    strict = Eligibility(rules=(Rule("secret", "password"),))
    caches = [answered(MemoryStore(), eligibility=rules) for rules in (Eligibility(), strict, Eligibility())]
    assert [cache.at_once(QUERY) is None for cache in caches] == [False, True, False]
    caches[0].eligibility = strict
    assert caches[0].at_once(QUERY) is None


async def test_a_store_at_hand_that_fails_in_its_own_way_is_a_miss(form):
    class Odd(MemoryStore):
        def get(self, id, *, now):
            raise RuntimeError("odd")

    dispatcher = Either(Dispatcher(SemanticCache(CountingEmbedder(), Odd())), form)
    assert isinstance(await dispatcher.begin(QUERY), Ticket)
    assert dispatcher.target.stats().failures == 1


def test_rules_of_ones_own_are_asked_each_time():
    class Moody(Eligibility):
        open = True

        def why_not_at_all(self, query):
            return None if Moody.open else "closed"

    cache = answered(MemoryStore(), eligibility=Moody())
    assert cache.at_once(QUERY) is not None
    Moody.open = False
    assert cache.at_once(QUERY) is None
