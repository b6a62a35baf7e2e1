"""How long an answer lives: jitter only shortens; reading prolongs only when told to, never past an oldest age."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fakes import FORMS, Clock, Either, FlakyStore, made
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import (
    ConfigError,
    HashingEmbedder,
    Lifetime,
    Match,
    Miss,
    Query,
    SemanticCache,
    StoreError,
    Threshold,
)
from dispatch_core.keys import digest

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
IDS = st.text(max_size=8).map(digest)
INSTANTS = st.floats(0, 4e9)
SECONDS = st.floats(1, 1e6)
JITTERS = st.floats(0, 1, exclude_max=True)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def opened(store, clock, form):
    """A cache whose answers live as they are told to."""

    def opened(**settings) -> Either:
        return Either(
            SemanticCache(HashingEmbedder(), store, policy=Threshold(0.5), ttl=Lifetime(**settings), clock=clock),
            form,
        )

    return opened


@pytest.fixture
def touches(store, monkeypatch) -> list[float]:
    """The ends of life that were written."""
    written: list[float] = []
    touch = store.touch

    def spied(id, *, expires, now):
        written.append(expires)
        touch(id, expires=expires, now=now)

    monkeypatch.setattr(store, "touch", spied)
    return written


async def _answered(cache: Either, query: Query = QUERY) -> None:
    await cache.store(cache.target.unseen(query), b"answer")


# What the settings mean


@given(IDS, INSTANTS, SECONDS, JITTERS)
def test_jitter_only_shortens_and_no_more_than_its_share(id, now, ttl, jitter):
    stale, expires = Lifetime(ttl, jitter=jitter).ends(id, now)
    assert stale is None
    slack = 1e-6 * (1 + now)
    assert now + ttl * (1 - jitter) - slack <= expires <= now + ttl


@given(IDS, INSTANTS, SECONDS, JITTERS)
def test_a_life_is_the_entrys_own_in_every_process(id, now, ttl, jitter):
    assert Lifetime(ttl, jitter=jitter).ends(id, now) == Lifetime(ttl, jitter=jitter).ends(id, now)


@given(INSTANTS)
def test_what_is_stored_together_does_not_end_together(now):
    ends = {Lifetime(3_600, jitter=0.1).ends(digest(f"{number}"), now)[1] for number in range(50)}
    assert len(ends) == 50
    assert max(ends) - min(ends) > 180


@given(IDS, INSTANTS, SECONDS)
def test_without_jitter_a_life_is_the_ttl(id, now, ttl):
    assert Lifetime(ttl, jitter=0).ends(id, now) == (None, now + ttl)


@given(IDS, INSTANTS, SECONDS, JITTERS, st.floats(1e-3, 1e6))
def test_staleness_comes_on_top_of_a_life(id, now, ttl, jitter, stale):
    fresh_until = Lifetime(ttl, jitter=jitter).ends(id, now)[1]
    assert Lifetime(ttl, jitter=jitter, stale=stale).ends(id, now) == (fresh_until, fresh_until + stale)


@given(IDS, INSTANTS)
def test_without_a_ttl_nothing_ends(id, now):
    assert Lifetime().ends(id, now) == (None, None)
    assert Lifetime().longest(now) is None


@given(IDS, INSTANTS, SECONDS, JITTERS, st.floats(0, 1e6))
def test_no_life_is_longer_than_the_longest(id, now, ttl, jitter, more):
    for lifetime in (Lifetime(ttl, jitter=jitter, stale=more), Lifetime(ttl, jitter=jitter, max_age=ttl + more)):
        longest = lifetime.longest(now)
        entry = replace(made(id, expires=lifetime.ends(id, now)[1]), created=now)
        assert entry.expires <= longest
        assert (lifetime.prolonged(entry, now + ttl) or 0) <= longest


@given(INSTANTS, SECONDS, JITTERS, st.floats(1, 10), st.lists(st.floats(0, 1), max_size=30))
def test_reading_prolongs_up_to_the_oldest_age_and_never_shortens(now, ttl, jitter, times, waits):
    lifetime = Lifetime(ttl, jitter=jitter, max_age=ttl * times)
    entry = replace(made("entry", expires=lifetime.ends(digest("entry"), now)[1]), created=now)
    for wait in waits:
        now += wait * ttl
        until = lifetime.prolonged(entry, now)
        if until is not None:
            assert until - entry.expires >= 0.1 * ttl
            assert until <= now + ttl
            assert until <= entry.created + ttl * times
            entry = replace(entry, expires=until)


@given(SECONDS, INSTANTS, st.floats(0, 1e7))
def test_without_an_oldest_age_reading_prolongs_nothing(ttl, now, later):
    for lifetime in (Lifetime(ttl), Lifetime(ttl, stale=ttl), Lifetime()):
        entry = replace(made("entry", expires=lifetime.ends(digest("entry"), now)[1]), created=now)
        assert lifetime.prolonged(entry, now + later) is None


def test_an_entry_without_an_end_is_not_given_one():
    assert Lifetime(10, max_age=20).prolonged(made("older settings"), 1e9) is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        *(({"ttl": ttl}, "ttl") for ttl in (0, -1, math.nan, math.inf)),
        *(({"ttl": 10, "jitter": jitter}, "jitter") for jitter in (-0.1, 1, 1.5, math.nan)),
        *(({"ttl": 10, "stale": stale}, "stale") for stale in (-1, math.inf, math.nan)),
        *(({"ttl": 10, "max_age": age}, "max_age") for age in (9.99, 0, -1, math.inf, math.nan)),
        ({"max_age": 10}, "max_age"),
        ({"stale": 10}, "stale"),
        ({"ttl": 10, "stale": 10, "max_age": 20}, "stale"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, named):
    with pytest.raises(ConfigError, match=named):
        Lifetime(**settings)


# What a cache makes of them


@pytest.mark.parametrize("settings", [{"ttl": 6}, {"ttl": 6, "stale": 3}, {"ttl": 6, "jitter": 0}])
async def test_reading_never_extends_a_life_without_an_oldest_age(opened, clock, touches, settings):
    cache = opened(**settings)
    await _answered(cache)
    for _ in range(20):
        clock.now += 0.25
        assert (await cache.lookup(QUERY)).exact
        assert isinstance(await cache.lookup(NEAR), Match)
    clock.now += 9
    assert isinstance(await cache.lookup(QUERY), Miss)
    assert isinstance(await cache.lookup(NEAR), Miss)
    assert touches == []


@pytest.mark.parametrize("query", [QUERY, NEAR], ids=["same words", "other words"])
async def test_hits_prolong_a_life_up_to_its_oldest_age(opened, clock, query):
    cache = opened(ttl=10, jitter=0, max_age=35)
    await _answered(cache)
    for _ in range(4):
        clock.now += 8
        assert isinstance(await cache.lookup(query), Match)
    clock.now += 2.9
    assert isinstance(await cache.lookup(query), Match)
    clock.now += 0.1
    assert isinstance(await cache.lookup(query), Miss)


async def test_what_is_not_read_ends_after_its_ttl(opened, clock):
    cache = opened(ttl=10, jitter=0, max_age=100)
    await _answered(cache)
    clock.now += 10
    assert isinstance(await cache.lookup(QUERY), Miss)


async def test_only_a_worthwhile_prolongation_is_written(opened, clock, touches):
    cache = opened(ttl=100, jitter=0, max_age=1_000)
    await _answered(cache)
    for _ in range(9):
        clock.now += 1
        await cache.lookup(QUERY)
    assert touches == []
    clock.now += 1
    for _ in range(10):
        await cache.lookup(QUERY)
    assert touches == [clock.now + 100]


async def test_at_the_oldest_age_nothing_is_written_any_more(opened, clock, touches):
    cache = opened(ttl=10, jitter=0, max_age=20)
    await _answered(cache)
    start = clock.now
    for _ in range(19):
        clock.now += 1
        assert isinstance(await cache.lookup(QUERY), Match)
    assert touches[-1] == start + 20
    assert len(touches) == 10


async def test_a_question_that_was_not_served_prolongs_nothing(opened, clock, touches):
    cache = opened(ttl=10, jitter=0, max_age=100)
    await _answered(cache)
    clock.now += 9
    assert isinstance(await cache.lookup(Query("how do I boil an egg")), Miss)
    await cache.explain(QUERY)
    assert touches == []


async def test_a_failure_to_prolong_is_an_error_of_the_store(opened, clock, store):
    cache = opened(ttl=10, jitter=0, max_age=100)
    await _answered(cache)
    clock.now += 5
    store.breaks, store.error = {"touch"}, StoreError("down")
    with pytest.raises(StoreError, match="down"):
        await cache.lookup(QUERY)


async def test_seconds_are_a_lifetime_with_jitter(store, form):
    cache = Either(SemanticCache(None, store, ttl=60), form)
    assert cache.target.lifetime == Lifetime(60)
    assert SemanticCache(None, store).lifetime == Lifetime()
