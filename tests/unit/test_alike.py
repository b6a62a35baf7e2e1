"""The same answer in other words: by embeddings, by facts, and a doubt means no."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import CountingEmbedder, Either, FlakyStore, made, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatch_core import (
    AnswersAlike,
    ConfigError,
    Consensus,
    Dispatcher,
    EmbeddingError,
    ErrorBounded,
    Fit,
    HashingEmbedder,
    Match,
    Query,
    SemanticCache,
    Threshold,
    Ticket,
)

ALIKE = (b"Click on forgot password on the login page.", b"On the login page, click on the forgot password link.")


def _alike(a: bytes, b: bytes, **settings) -> bool:
    same = AnswersAlike(CountingEmbedder(), **{"at_least": 0.6, **settings})
    one, other = made("one", payload=a), made("other", payload=b)
    assert same(one, other) == same(other, one)
    return same(one, other)


class Recording(CountingEmbedder):
    """Remembers in which threads it embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def embed(self, texts):
        self.threads.add(threading.get_ident())
        return super().embed(texts)


# What is the same


def test_other_words_with_the_same_facts_are_the_same():
    assert _alike(*ALIKE)
    assert _alike(b"It takes 3 days to arrive.", b"To arrive it takes 3 days.")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"It takes 3 days to arrive.", b"To arrive it takes 4 days."),
        (b"It takes 3 days to arrive.", b"To arrive it takes 3 weeks."),
        (b"It costs 60,000 tokens at most.", b"At most it costs 6,000 tokens."),
        (b"The shop opens on 3 May 2026.", b"The shop opens on 3 June 2026."),
        (b"Call get_user_name first.", b"First call get_user_email."),
        (b"It ends on Monday.", b"It is a wholly different thing."),
    ],
)
def test_other_facts_or_other_things_are_another_answer(one, other):
    assert not _alike(one, other)


def test_how_near_is_near_enough_is_a_setting():
    assert not _alike(*ALIKE, at_least=0.99)
    assert _alike(b"Yes, of course.", b"yes, of course", at_least=1.0)


def test_answers_in_json_are_compared_by_what_they_say():
    one, other = (json.dumps({"text": text.decode(), "id": text.hex()}).encode() for text in ALIKE)
    assert _alike(one, other)


@pytest.mark.parametrize("field", ["tool_calls", "function_call", "image_url"])
def test_answers_that_say_more_than_text_are_the_same_only_if_equal(field):
    one, other = (json.dumps({"text": text.decode(), field: [{"name": "pay"}]}).encode() for text in ALIKE)
    assert not _alike(one, other)
    assert _alike(one, one)


@pytest.mark.parametrize("payload", [b"\xff\xfe", b"", b"   ", b"{}", b"[]", b"null", b"x" * 40_000])
def test_what_cannot_be_read_is_the_same_only_if_equal(payload):
    embedder = CountingEmbedder()
    same = AnswersAlike(embedder, at_least=0.1)
    assert not same(made("a", payload=payload), made("b", payload=b"An answer in words."))
    assert same(made("a", payload=payload), made("b", payload=payload))
    assert all(text.strip() for text in embedder.texts)


def test_two_long_answers_with_one_beginning_are_not_the_same_answer():
    beginning = "Thank you for your question about our service. " * 100
    assert not _alike(f"{beginning}You may do so.".encode(), f"{beginning}It is forbidden.".encode())


def test_words_that_the_encoder_does_not_know_are_no_likeness():
    class Blind(CountingEmbedder):
        """Reads every text as unknown words."""

        def fit(self, text):
            return Fit(tokens=10, unknown=8)

        def embed(self, texts):
            return np.stack([unit(1, 0)] * len(texts))

    same = AnswersAlike(Blind())
    assert not same(made("a", payload="是的".encode()), made("b", payload="不是".encode()))


def test_an_unusable_vector_is_no_likeness():
    embedder = CountingEmbedder()
    embedder.answer = np.full((1, 256), np.nan, np.float32)
    assert not AnswersAlike(embedder)(made("a", payload=ALIKE[0]), made("b", payload=ALIKE[1]))


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_it_is_symmetric_and_everything_is_like_itself(a, b):
    _alike(a, b)
    assert _alike(a, a)


@pytest.mark.parametrize("settings", [{"at_least": 0}, {"at_least": 1.1}, {"at_least": float("nan")}, {"size": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        AnswersAlike(HashingEmbedder(), **settings)


# What it costs


def test_every_answer_is_embedded_once():
    embedder = CountingEmbedder()
    same = AnswersAlike(embedder, at_least=0.1)
    answers = [made(f"{number}", payload=f"An answer called {word}.".encode()) for number, word in enumerate("abcde")]
    for _ in range(3):
        for one in answers:
            for other in answers:
                same(one, other)
    assert sorted(embedder.texts) == sorted(answer.payload.decode() for answer in answers)


def test_equal_answers_and_other_facts_are_not_embedded():
    embedder = CountingEmbedder()
    same = AnswersAlike(embedder)
    same(made("a", payload=b"Yes."), made("b", payload=b"yes"))
    same(made("a", payload=b"It takes 3 days."), made("b", payload=b"It takes 4 days."))
    assert embedder.texts == []


def test_no_more_vectors_are_kept_than_told():
    embedder = CountingEmbedder()
    same = AnswersAlike(embedder, size=2)
    for word in "abab":
        same(made("x", payload=b"This is it."), made("y", payload=f"This is {word * 3}.".encode()))
    assert len(same._vectors) == 2
    assert embedder.texts.count("This is it.") == 1


def test_many_threads_may_compare_at_once():
    same = AnswersAlike(CountingEmbedder(), at_least=0.6, size=5)
    answers = [made(f"{number}", payload=ALIKE[number % 2] + b" " * number) for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        pairs = [(one, other) for one in answers for other in answers]
        assert all(threads.map(lambda pair: same(*pair), pairs))
    assert len(same._vectors) <= 5


def test_an_embedder_that_fails_is_heard():
    embedder = CountingEmbedder()
    embedder.error = EmbeddingError("down")
    with pytest.raises(EmbeddingError):
        AnswersAlike(embedder)(made("a", payload=ALIKE[0]), made("b", payload=ALIKE[1]))


# In a cache

QUERIES = [Query(f"how to reset {whose} password") for whose in ("my", "the", "our", "a", "your")]


async def _crowded(cache: SemanticCache) -> None:
    for number, query in enumerate(QUERIES):
        await cache.astore(cache.unseen(query), ALIKE[number % 2])


@pytest.mark.parametrize("policy", [Consensus, lambda **given: ErrorBounded(base=Consensus(**given))])
async def test_answers_are_compared_off_the_event_loop(policy):
    embedder = Recording()
    decides = policy(threshold=0.99, guards=(), same=AnswersAlike(embedder, at_least=0.6))
    cache = SemanticCache(HashingEmbedder(), FlakyStore(), policy=decides)
    await _crowded(cache)
    await cache.alookup(Query("how to reset this password"))
    assert embedder.threads
    assert threading.get_ident() not in embedder.threads


async def test_answers_that_are_worded_anew_agree():
    policy = Consensus(0.99, 0.51, guards=(), same=AnswersAlike(HashingEmbedder(), at_least=0.6))
    cache = SemanticCache(HashingEmbedder(), FlakyStore(), policy=policy)
    await _crowded(cache)
    found = Query("how to reset this password")
    assert (await cache.aexplain(found)).reason == "consensus"
    assert cache.explain(found).reason == "consensus"
    assert isinstance(await cache.alookup(found), Match)


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_a_comparison_that_fails_is_a_miss_and_the_answer_is_stored(form):
    embedder, store = CountingEmbedder(), FlakyStore()
    policy = Threshold(0.5, same=AnswersAlike(embedder))
    dispatcher = Either(Dispatcher(SemanticCache(HashingEmbedder(), store, policy=policy, shadow=True)), form)
    embedder.error = EmbeddingError("down")
    for number, query in enumerate(QUERIES[:2]):
        ticket = await dispatcher.begin(query)
        assert isinstance(ticket, Ticket)
        await dispatcher.finish(ticket, ALIKE[number])
        assert await dispatcher.flush(20)
    stats = dispatcher.target.stats()
    assert (stats.stored, stats.failures, stats.checked, len(store)) == (2, 1, 0, 2)
