"""Why a question would be answered from the cache, or would not: said in words, and without a trace."""

from __future__ import annotations

import threading

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FlakyStore

from dispatch_core import (
    AnswersAlike,
    Consensus,
    Dispatcher,
    ErrorBounded,
    Explanation,
    Guarded,
    HashingEmbedder,
    Lifetime,
    Match,
    Query,
    SemanticCache,
    Threshold,
)
from dispatch_core.explain import Neighbour

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def opened(store, form):
    def opened(policy=None, **settings) -> Either:
        return Either(SemanticCache(CountingEmbedder(), store, policy=policy or Threshold(0.5), **settings), form)

    return opened


async def _answered(cache: Either, text: str, payload: bytes = b"answer") -> None:
    await cache.store(cache.target.unseen(Query(text)), payload)


# The reasons


async def test_the_same_words(opened):
    cache = opened()
    await _answered(cache, QUERY.text)
    explained = await cache.explain(QUERY)
    assert (explained.hit, explained.reason, explained.neighbours) == (True, "exact", [])
    assert str(explained) == "hit: exact"


async def test_a_near_duplicate(opened):
    cache = opened(Consensus(0.5))
    await _answered(cache, QUERY.text)
    explained = await cache.explain(NEAR.text)
    assert (explained.hit, explained.reason) == (True, "near-duplicate")
    only = explained.neighbours[0]
    assert (only.answer, only.refusal, only.text) == ("A", None, QUERY.text)
    assert only.score == pytest.approx(explained.decision.hit.score)
    first, line = str(explained).splitlines()
    assert first.startswith("hit: near-duplicate")
    assert line.split()[1:3] == ["A", "passes"]
    assert line.endswith(QUERY.text)


async def test_a_refusal_of_a_guard(opened):
    cache = opened(Guarded(0.5))
    await _answered(cache, "how much is parking for 2 days")
    explained = await cache.explain("how much is parking for 3 days")
    assert (explained.hit, explained.reason, explained.neighbours[0].refusal) == (False, "number", "number")


async def test_answers_that_contradict_each_other(opened):
    cache = opened(Consensus(0.5, guards=()))
    await _answered(cache, "how to reset my password", b"this")
    await _answered(cache, "how to reset the password", b"that")
    await _answered(cache, "how to reset our password", b"That.")
    explained = await cache.explain(NEAR)
    assert (explained.hit, explained.reason) == (False, "contested")
    answers = {neighbour.text.split()[3]: neighbour.answer for neighbour in explained.neighbours}
    assert answers["the"] == answers["our"] != answers["my"]
    assert set(answers.values()) == {"A", "B"}
    assert explained.neighbours[0].answer == "A"


async def test_too_far(opened):
    cache = opened()
    await _answered(cache, QUERY.text)
    explained = await cache.explain("how do I boil an egg")
    assert (explained.hit, explained.reason, len(explained.neighbours)) == (False, "below-threshold", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 1_001, "too-long"),
        ("What time is it?", "volatile"),
        ("Where is my parcel?", "personal"),
        ("", "empty-text"),
        ("two\nlines", "several-lines"),
        ("a question", "empty"),
    ],
)
async def test_a_question_that_is_not_compared(opened, text, reason):
    explained = await opened().explain(text)
    assert (explained.hit, explained.reason, list(explained.neighbours)) == (False, reason, [])
    assert str(explained) == f"miss: {reason}"
    assert "<table>" not in explained._repr_html_()


async def test_a_question_of_which_a_hit_was_taken_back(opened):
    cache = opened(Threshold(0.3, neighbours=4))
    await _answered(cache, QUERY.text)
    await cache.reject((await cache.lookup(Query("how to change a password"))).hit_id)
    explained = await cache.explain("how to change a password")
    assert (explained.hit, explained.reason) == (False, "rejected")
    assert [(one.answer, one.refusal) for one in explained.neighbours] == [("–", "rejected"), ("A", None)]


async def test_a_policy_that_learns_is_explained_by_its_base(opened):
    cache = opened(ErrorBounded(base=Guarded(0.5)))
    await _answered(cache, "how much is parking for 2 days")
    explained = await cache.explain("how much is parking for 3 days")
    assert explained.neighbours[0].refusal == "number"
    assert (await cache.explain("How much is parking for 2 days?")).reason == "warming-up"


async def test_it_is_about_the_whole_question(opened):
    cache = opened()
    await cache.store(cache.target.unseen(Query(QUERY.text, "scope", "tenant")), b"answer")
    assert (await cache.explain(Query(QUERY.text, "scope", "tenant"))).hit
    assert not (await cache.explain(QUERY.text)).hit
    assert not (await cache.explain(Query(QUERY.text, "scope", "theirs"))).hit


async def test_it_says_what_a_lookup_would_come_to(opened):
    cache = opened(Consensus(0.5))
    for text in ("how to reset my password", "how do I boil an egg", "how to open an account"):
        await _answered(cache, text)
    for text in ("how to reset a password", "how do I boil 2 eggs", "how to open an account", "who are you"):
        explained, found = await cache.explain(text), await cache.lookup(Query(text))
        hit = isinstance(found, Match)
        assert explained.hit is hit
        assert explained.decision.hit == (None if not hit else Match(found.entry, found.score, found.exact))


# Without a trace


async def test_to_explain_changes_nothing(opened, store, form):
    clock = Clock(1_000.0)
    cache = opened(ErrorBounded(base=Threshold(0.5)), ttl=Lifetime(100, jitter=0, max_age=1_000), clock=clock)
    dispatcher = Dispatcher(cache.target)
    await _answered(cache, QUERY.text)
    clock.now += 90
    store.put = store.touch = store.delete = store.clear = None
    for text in (QUERY.text, NEAR.text, "how do I boil an egg", "What time is it?", "", "x" * 2_000):
        await cache.explain(text)
    assert len(store) == 1
    assert not any(cache.target._hits._ring)
    assert cache.target.policy.bounds() == {}
    assert dispatcher.stats() == Dispatcher().stats()


async def test_slow_answers_are_compared_off_the_event_loop(store):
    threads = set()

    class Recording(HashingEmbedder):
        def embed(self, texts):
            threads.add(threading.get_ident())
            return super().embed(texts)

    cache = SemanticCache(HashingEmbedder(), store, policy=Threshold(0.3, 4, AnswersAlike(Recording())))
    for number, text in enumerate(("how to reset my password", "how to reset the password")):
        await cache.astore(cache.unseen(Query(text)), b"answer in words" if number else b"words of an answer")
    await cache.areject((await cache.alookup(Query("how to reset a password please"))).hit_id)
    assert len((await cache.aexplain(NEAR)).neighbours) == 3
    assert threads
    assert threading.get_ident() not in threads


async def test_a_tombstone_is_not_compared_with_answers(opened):
    compared = []

    def same(one, other):
        compared.append((one.tombstone, other.tombstone))
        return False

    cache = opened(Threshold(0.3, 4, same))
    for text in ("how to reset my password", "how to reset the password"):
        await _answered(cache, text)
    await cache.reject((await cache.lookup(NEAR)).hit_id)
    assert len((await cache.explain(NEAR)).neighbours) == 3
    assert compared == [(False, False)]


# Hostile content

HOSTILE = "<script>alert('x')</script>\x1b[2J\u202e\ud800 & \"quoted\"\r\n\tend"


async def test_hostile_questions_are_shown_as_text(opened):
    cache = opened(Threshold(0.3))
    entry = cache.target.entry(cache.target.unseen(Query(HOSTILE)), b"<b>answer</b>", None)
    cache.target.stored_in.put(entry, HashingEmbedder().embed([HOSTILE])[0])
    explained = await cache.explain("script alert x script quoted end")
    assert explained.neighbours[0].text == HOSTILE
    for shown in (str(explained), explained._repr_html_()):
        shown.encode()
        assert not set(shown) & set("\x1b\u202e\ud800\r\t")
        assert r"\x1b[2J\u202e\ud800" in shown
    assert len(str(explained).splitlines()) == 2
    html = explained._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr>") == html.count("</tr>") == 2


def test_reasons_and_guards_are_escaped_too():
    explained = Explanation("q", False, "<i>rule</i>", None, [Neighbour(0.5, "A", "<u>guard</u>", "text")])
    html = explained._repr_html_()
    assert "<i>" not in html
    assert "<u>" not in html


def test_a_long_question_is_cut_in_text():
    explained = Explanation("q", False, "below-threshold", None, [Neighbour(0.5, "A", None, "word " * 500)])
    assert len(str(explained).splitlines()[1]) < 110
    assert str(explained).endswith("…")
