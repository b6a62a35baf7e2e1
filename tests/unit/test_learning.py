"""A policy learns once from every stored answer, never from exact hits, and its failure costs nobody an answer."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest
from fakes import FORMS, CountingEmbedder, Either, FakeLimiter, FlakyStore
from flights import COST

from dispatch_core import (
    Consensus,
    Decision,
    Dispatcher,
    Entry,
    ErrorBounded,
    Guarded,
    Match,
    Miss,
    Query,
    Reading,
    SemanticCache,
    StoreError,
    Threshold,
    Ticket,
    Usage,
)
from dispatch_core.types import Matrix

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
FAR = Query("how do I boil an egg")


class Pupil:
    """Serves nothing unless told to; remembers its lessons, or fails in them."""

    neighbours = 3
    threshold = 0.5

    def __init__(self) -> None:
        self.serves = False
        self.error: Exception | None = None
        self.lessons: list[tuple[str, str]] = []
        self.tries = 0
        self.threads: set[int] = set()

    @staticmethod
    def same(one: Entry, other: Entry) -> bool:
        return one.payload == other.payload

    def grade(self, text, candidates, *, floor) -> Decision:
        return Threshold(floor).decide(text, candidates)

    def decide(self, text, candidates) -> Decision:
        graded = self.grade(text, candidates, floor=0.5)
        return graded if self.serves or graded.hit is None else Decision(None, "learning", *_candidate(graded))

    def learn(self, decision: Decision, answer: Entry) -> None:
        self.tries += 1
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        self.lessons.append((decision.candidate.entry.text, answer.text))


def _candidate(graded: Decision) -> tuple[Match | None, Match | None, float, str]:
    return graded.nearest, graded.candidate, graded.level, graded.path


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def pupil() -> Pupil:
    return Pupil()


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture(params=[True, False], ids=["behind", "at once"])
def settings(request: pytest.FixtureRequest) -> dict[str, bool]:
    return {"write_behind": request.param}


@pytest.fixture
async def dispatcher(pupil, store, form, settings):
    cache = SemanticCache(CountingEmbedder(), store, policy=pupil)
    either = Either(Dispatcher(cache, FakeLimiter(), **settings), form)
    yield either
    assert await either.flush(20)


async def _asked(dispatcher: Either, query: Query, payload: bytes | None = b"answer") -> Ticket:
    ticket = await dispatcher.begin(query, COST)
    assert isinstance(ticket, Ticket)
    await dispatcher.finish(ticket, payload, Usage(3, 4))
    assert await dispatcher.flush(20)
    return ticket


async def test_every_stored_answer_is_one_lesson(dispatcher, pupil):
    await _asked(dispatcher, QUERY)
    assert pupil.lessons == []
    await _asked(dispatcher, NEAR)
    assert pupil.lessons == [(QUERY.text, NEAR.text)]
    await _asked(dispatcher, FAR)
    assert len(pupil.lessons) == 1


async def test_a_cache_without_a_dispatcher_teaches_alike(pupil, store, form):
    cache = Either(SemanticCache(CountingEmbedder(), store, policy=pupil), form)
    for query in (QUERY, NEAR):
        await cache.store(await cache.lookup(query), b"answer")
    assert pupil.lessons == [(QUERY.text, NEAR.text)]


async def test_exact_hits_teach_nothing(dispatcher, pupil):
    await _asked(dispatcher, QUERY)
    dispatcher.target.cache.shadow = True
    await _asked(dispatcher, QUERY)
    assert pupil.tries == 0
    assert dispatcher.target.stats().checked == 1


async def test_hits_that_are_served_teach_nothing(dispatcher, pupil):
    await _asked(dispatcher, QUERY)
    pupil.serves = True
    assert isinstance(await dispatcher.begin(NEAR), Match)
    assert isinstance(await dispatcher.begin(QUERY), Match)
    assert pupil.tries == 0


async def test_an_answer_that_is_not_kept_teaches_nothing(dispatcher, pupil):
    await _asked(dispatcher, QUERY)
    await _asked(dispatcher, NEAR, None)
    dispatcher.target.abort(await dispatcher.begin(NEAR))
    assert pupil.tries == 0


@pytest.mark.parametrize("error", [ValueError("a bug"), StoreError("down")])
async def test_who_fails_to_learn_loses_neither_the_answer_nor_the_call(dispatcher, pupil, error):
    await _asked(dispatcher, QUERY)
    pupil.error = error
    ticket = await _asked(dispatcher, NEAR, b"another")
    assert ticket.reservation.fate == [("settled", Usage(3, 4))]
    assert (await dispatcher.begin(NEAR)).entry.payload == b"another"
    stats = dispatcher.target.stats()
    assert (pupil.tries, stats.stored, stats.failures, stats.not_stored) == (1, 2, 1, 0)


async def test_who_cannot_learn_is_logged_once_and_the_cache_goes_on(dispatcher, pupil, caplog):
    caplog.set_level(logging.DEBUG, "dispatch_core")
    await _asked(dispatcher, QUERY)
    pupil.error = ValueError("a bug")
    for number in range(20):
        await _asked(dispatcher, Query(f"{QUERY.text} x{number}"))
    assert [record.message for record in caplog.records] == [
        "learning failed, calls go on without it: ValueError: no details logged",
        "learning is paused, calls go on without it: ValueError: no details logged",
    ]
    assert pupil.tries == 3
    assert dispatcher.target.stats().stored == 21


async def test_a_store_that_is_down_is_left_alone_though_calls_are_finished(dispatcher, store):
    store.error = StoreError("down")
    for _ in range(10):
        await _asked(dispatcher, QUERY)
    assert store.asked == 3


async def test_with_raise_a_failure_to_learn_reaches_the_caller_after_the_answer_was_stored(pupil, store, form):
    cache = SemanticCache(CountingEmbedder(), store, policy=pupil)
    dispatcher = Either(Dispatcher(cache, on_error="raise"), form)
    await _asked(dispatcher, QUERY)
    pupil.error = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        await _asked(dispatcher, NEAR, b"another")
    assert (await dispatcher.begin(NEAR)).entry.payload == b"another"


async def test_a_policy_that_is_slow_to_compare_learns_off_the_event_loop(pupil, store):
    class Slow:
        slow = True

        def __call__(self, one: Entry, other: Entry) -> bool:
            return True

    pupil.same = Slow()
    cache = SemanticCache(CountingEmbedder(), store, policy=pupil)
    for query in (QUERY, NEAR):
        await cache.astore(await cache.alookup(query), b"answer")
    assert pupil.tries == 1
    assert threading.get_ident() not in pupil.threads


class Reader(Threshold):
    """Notes what it reads beforehand, or fails at it."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(0.99)
        object.__setattr__(self, "texts", [])
        object.__setattr__(self, "error", error)

    def read(self, text: str) -> None:
        self.texts.append(text)
        if self.error is not None:
            raise self.error


async def test_a_policy_reads_what_was_stored_to_be_compared_by_meaning(form):
    policy = Reader()
    dispatcher = Either(Dispatcher(SemanticCache(CountingEmbedder(), FlakyStore(), policy=policy)), form)
    for query in (QUERY, Query(FAR.text, semantic=False)):
        await dispatcher.finish(await dispatcher.begin(query), b"answer")
    await dispatcher.flush()
    assert policy.texts == [QUERY.text]


async def test_a_policy_that_fails_to_read_costs_nobody_an_answer(form):
    dispatcher = Either(Dispatcher(SemanticCache(CountingEmbedder(), FlakyStore(), policy=Reader(OSError()))), form)
    await dispatcher.finish(await dispatcher.begin(QUERY), b"answer")
    await dispatcher.flush()
    assert (await dispatcher.begin(QUERY)).entry.payload == b"answer"


class Slow(CountingEmbedder):
    """Embeds nothing for a task before the policy has read something."""

    def __init__(self, policy: Reader) -> None:
        super().__init__()
        self.policy = policy

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        while not self.policy.texts:
            await asyncio.sleep(0)
        return self.embed(texts)


@pytest.mark.parametrize("error", [None, OSError()])
async def test_a_policy_reads_a_question_while_it_is_embedded(error):
    policy = Reader(error)
    cache = SemanticCache(Slow(policy), FlakyStore(), policy=policy)
    assert isinstance(await cache.alookup(QUERY), Miss)
    assert policy.texts == [QUERY.text]


@pytest.mark.parametrize("policy", [Guarded(), Consensus(), ErrorBounded(), ErrorBounded(base=Threshold())])
def test_reading_a_text_changes_no_decision(policy):
    assert isinstance(policy, Reading)
    cache = SemanticCache(CountingEmbedder(), FlakyStore(), policy=policy)
    cache.store(cache.lookup(QUERY), b"answer")
    before = cache.explain(NEAR).reason
    policy.read(NEAR.text)
    policy.read("")
    assert cache.explain(NEAR).reason == before
