"""What an answer rests on, and for whom it is kept: tags, sources, tenants, and questions that go past the cache."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fakes import FORMS, CountingEmbedder, Either, FakeLimiter, FlakyStore
from flights import COST, virtual_world
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import (
    ConfigError,
    Consensus,
    Dispatcher,
    Eligibility,
    ErrorBounded,
    Guarded,
    HashingEmbedder,
    Match,
    MemoryStore,
    Miss,
    Query,
    Rule,
    SemanticCache,
    Threshold,
    Ticket,
    Usage,
)

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
CLOCK = Query("What time is it?")
PARCEL = Query("Where is my parcel?")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def opened(store, form):
    def opened(**settings) -> Either:
        return Either(SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5), **settings), form)

    return opened


async def _answered(cache: Either, query: Query, payload: bytes = b"answer") -> None:
    await cache.store(cache.target.unseen(query), payload)


async def _payload(cache: Either, query: Query) -> bytes | None:
    found = await cache.lookup(query)
    return found.entry.payload if isinstance(found, Match) else None


# Tags


async def test_clearing_by_tags_forgets_just_what_carries_any_of_them(opened):
    cache = opened()
    tags = {"a": ("prices",), "b": ("prices", "terms"), "c": ("terms",), "d": ()}
    for name, its in tags.items():
        await _answered(cache, Query(name, semantic=False, tags=its))
    assert await cache.clear(tags=["prices", "never used"]) == 2
    found = [await _payload(cache, Query(name, semantic=False)) for name in tags]
    assert found == [None, None, b"answer", b"answer"]


@pytest.mark.parametrize(("namespace", "left"), [("ours", [False, True]), (None, [False, False])])
async def test_clearing_by_tags_touches_one_namespace_or_all(opened, namespace, left):
    cache = opened()
    queries = [replace(QUERY, namespace=name, tags=("prices",)) for name in ("ours", "theirs")]
    for query in queries:
        await _answered(cache, query)
        await _answered(cache, replace(query, text="untagged", tags=()))
    await cache.clear(namespace, tags=["prices"])
    assert [await _payload(cache, query) is not None for query in queries] == left
    assert await _payload(cache, replace(QUERY, text="untagged", namespace="ours")) == b"answer"


async def test_the_tags_of_the_cache_and_of_the_question_both_count(opened):
    cache = opened(tags=["app", "app", "shop"])
    await _answered(cache, replace(QUERY, tags=("prices", "app")))
    assert (await cache.lookup(QUERY)).entry.tags == ("app", "prices", "shop")
    assert await cache.clear(tags={"shop"}) == 1
    await _answered(cache, replace(QUERY, tags=("prices",)))
    assert await cache.clear(tags={"prices"}) == 1


async def test_tags_are_no_part_of_the_identity(opened):
    cache = opened()
    await _answered(cache, replace(QUERY, tags=("prices",)))
    assert await _payload(cache, QUERY) == b"answer"
    assert await _payload(cache, replace(NEAR, tags=("terms",))) == b"answer"


@pytest.mark.parametrize("tags", ["prices", "", [], (), set(), iter(())], ids=lambda tags: type(tags).__name__)
@pytest.mark.parametrize("through", ["cache", "dispatcher"])
async def test_tags_to_clear_that_are_none_are_refused_and_nothing_is_forgotten(opened, store, form, tags, through):
    cache = opened()
    await _answered(cache, QUERY)
    target = cache if through == "cache" else Either(Dispatcher(cache.target), form)
    with pytest.raises(ConfigError, match="tags"):
        await target.clear(tags=tags)
    assert len(store) == 1


async def test_tags_to_clear_may_be_any_collection_that_is_read_once(opened, store):
    cache = opened()
    await _answered(cache, replace(QUERY, tags=("prices",)))
    await _answered(cache, Query("untagged"))
    assert await cache.clear(tags=(tag for tag in ("prices",))) == 1
    assert len(store) == 1


async def test_one_string_is_no_collection_of_tags(opened):
    with pytest.raises(ConfigError, match="tags"):
        opened(tags="prices")
    with pytest.raises(ConfigError, match="tags"):
        await opened().lookup(replace(QUERY, tags="prices"))


async def test_the_dispatcher_clears_by_tags_what_is_still_being_written(opened, form):
    dispatcher = Either(Dispatcher(opened().target), form)
    await dispatcher.finish(await dispatcher.begin(replace(QUERY, tags=("prices",))), b"answer")
    assert await dispatcher.clear(tags=["prices"]) == 1
    assert isinstance(await dispatcher.begin(QUERY), Ticket)


# Sources


async def test_an_answer_from_an_older_version_is_never_found(opened):
    cache = opened(sources={"handbook": "1"})
    await _answered(cache, QUERY, b"of version 1")
    cache.target.sources["handbook"] = "2"
    for query in (QUERY, NEAR):
        assert isinstance(await cache.lookup(query), Miss)
    await _answered(cache, QUERY, b"of version 2")
    for query in (QUERY, NEAR):
        assert await _payload(cache, query) == b"of version 2"
    cache.target.sources["handbook"] = "1"
    for query in (QUERY, NEAR):
        assert await _payload(cache, query) == b"of version 1"


async def test_a_question_may_name_sources_and_versions_of_its_own(opened):
    cache = opened(sources={"handbook": "1"})
    asked = replace(QUERY, sources=(("prices", "2026"), ("handbook", "2")))
    await _answered(cache, asked)
    assert isinstance(await cache.lookup(QUERY), Miss)
    assert isinstance(await cache.lookup(replace(asked, sources=(("prices", "2026"),))), Miss)
    assert await _payload(cache, replace(NEAR, sources=asked.sources[::-1])) == b"answer"
    cache.target.sources["handbook"] = "another"
    assert await _payload(cache, asked) == b"answer"


async def test_the_settings_of_one_cache_are_its_own(opened):
    given_sources = {"handbook": "1"}
    cache = opened(sources=given_sources)
    await _answered(cache, QUERY)
    given_sources["handbook"] = "2"
    assert await _payload(cache, QUERY) == b"answer"


async def test_a_version_that_is_no_string_is_refused(opened):
    cache = opened()
    with pytest.raises(ConfigError, match="handbook"):
        await cache.lookup(replace(QUERY, sources=(("handbook", 2),)))
    cache.target.sources["handbook"] = None
    with pytest.raises(ConfigError, match="versions of sources are strings"):
        await cache.lookup(QUERY)


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4), st.data())
def test_only_the_same_versions_of_the_same_sources_share_a_scope(sources, data):
    others = data.draw(
        st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4) | st.just(sources[:])
    )
    cache = SemanticCache(None, MemoryStore())
    scopes = [cache.unseen(replace(QUERY, sources=tuple(its))).scope for its in (sources, others)]
    assert (scopes[0] == scopes[1]) == (dict(sources) == dict(others))


# Questions that go past the cache


@pytest.mark.parametrize(("query", "reason"), [(CLOCK, "volatile"), (PARCEL, "personal")])
async def test_what_changes_or_depends_on_who_asks_is_neither_looked_up_nor_stored(opened, store, query, reason):
    cache = opened()
    miss = await cache.lookup(query)
    assert (miss.reason, miss.vector, miss.decision) == (reason, None, None)
    await cache.store(miss, b"answer")
    await cache.store(cache.target.unseen(query), b"answer")
    assert (len(store), store.asked, cache.target.embedder.calls) == (0, 0, [])


@pytest.mark.parametrize("query", [CLOCK, PARCEL])
async def test_the_dispatcher_counts_it_as_bypassed_and_still_reserves(opened, store, form, query):
    limiter = FakeLimiter()
    dispatcher = Either(Dispatcher(opened().target, limiter), form)
    for _ in range(2):
        ticket = await dispatcher.begin(query, COST)
        assert ticket.miss is None
        await dispatcher.finish(ticket, b"answer", Usage(3, 4))
    assert await dispatcher.flush(20)
    stats = dispatcher.target.stats()
    assert (stats.bypassed, stats.lookups, stats.stored, stats.not_stored) == (2, 0, 0, 2)
    assert stats.spent == Usage(6, 8)
    assert [reservation.fate for reservation in limiter.given] == [[("settled", Usage(3, 4))]] * 2
    assert (len(store), store.asked) == (0, 0)


async def test_an_answer_from_elsewhere_to_such_a_question_is_not_stored(opened, store, form):
    dispatcher = Either(Dispatcher(opened().target), form)
    await dispatcher.finish(dispatcher.target.unlooked(CLOCK), b"noon")
    assert await dispatcher.flush(20)
    assert (len(store), dispatcher.target.stats().stored, dispatcher.target.stats().not_stored) == (0, 0, 1)


@pytest.mark.parametrize("query", [CLOCK, PARCEL])
def test_nobody_waits_for_anothers_answer_to_such_a_question(query):
    async def main() -> None:
        world, start = virtual_world(), virtual_now()
        await asyncio.gather(*(world.aask(query) for _ in range(10)))
        assert world.calls == 10
        assert virtual_now() - start < 1.1
        assert (world.dispatcher.stats().bypassed, world.dispatcher.stats().shared) == (10, 0)

    in_virtual_time(main())


@pytest.mark.parametrize(("query", "rule"), [(CLOCK, "volatile"), (PARCEL, "personal")])
async def test_a_rule_may_be_switched_off_or_made_milder(opened, query, rule):
    off = opened(eligibility=Eligibility(**{rule: None}))
    await _answered(off, query)
    assert await _payload(off, query) == b"answer"
    assert (await off.lookup(Query(query.text[:-1] + " please?"))).kind == "semantic"
    exact = opened(eligibility=Eligibility(**{rule: "exact"}))
    assert (await exact.lookup(query)).exact
    other = await exact.lookup(Query(query.text + "?"))
    assert (other.reason, other.vector) == (rule, None)


async def test_a_rule_of_ones_own_holds_both_ways(opened, store):
    cache = opened(eligibility=Eligibility(rules=(Rule("secret", "project x"),)))
    secret = Query("What is Project X about?")
    await _answered(cache, secret)
    assert (await cache.lookup(secret)).reason == "secret"
    assert len(store) == 0


# Never across a border


POLICIES = [
    Threshold(-1.0),
    Guarded(-1.0, guards=()),
    Consensus(-1.0, guards=(), supporters=2, neighbours=20, clarity=0.51),
    ErrorBounded(0.9, Threshold(-1.0), confidence=0.5, check=0.01),
]
WORDS = st.sampled_from(["reset", "password", "boil", "egg", "price"])
ASKED = st.builds(
    lambda words, namespace, scope, version: Query(
        " ".join(words), scope, namespace, sources=(("handbook", version),)
    ),
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from(["", "ours", "theirs"]),
    st.sampled_from(["", "ours", "gpt"]),
    st.sampled_from(["1", "2"]),
)


@pytest.mark.parametrize("number", range(len(POLICIES)))
@settings(deadline=None, max_examples=60)
@given(st.lists(ASKED, min_size=2, max_size=30))
def test_no_policy_ever_serves_across_scopes_tenants_or_versions(number, asked):
    cache = SemanticCache(HashingEmbedder(64), MemoryStore(), policy=POLICIES[number])

    def place(query: Query) -> bytes:
        return repr((query.namespace, query.scope, query.sources)).encode()

    for query in asked:
        found = cache.lookup(query)
        if isinstance(found, Match):
            assert found.entry.payload == place(query)
        else:
            assert found.nearest is None or found.nearest.entry.payload == place(query)
            cache.store(found, place(query))


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": 0.9},
        {"policy": Threshold},
        {"eligibility": "exact"},
        {"ttl": "1h"},
        {"ttl": -1},
        {"tags": [1, "a"]},
        {"sources": {"handbook": 3}},
    ],
)
def test_a_mistake_is_refused_at_once(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SemanticCache(None, MemoryStore(), **settings)
