"""The semantic cache: one embedding per miss, none per exact hit, and never another's answer."""

from __future__ import annotations

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FlakyStore

from dispatch_core import (
    ConfigError,
    EmbeddingError,
    Match,
    MemoryStore,
    Miss,
    Query,
    SemanticCache,
    StoreError,
    Threshold,
    Usage,
)

LOOSE = Threshold(0.5)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def cache(embedder, store, clock, form) -> Either:
    return Either(SemanticCache(embedder, store, policy=LOOSE, ttl=6, clock=clock), form)


async def _answer(cache: Either, query: Query, payload: bytes = b"answer") -> None:
    miss = await cache.lookup(query)
    assert isinstance(miss, Miss)
    await cache.store(miss, payload, Usage(1, 2))


# Hits and misses


async def test_a_stored_answer_is_found_again_exactly(cache):
    await _answer(cache, Query("a question"))
    match = await cache.lookup(Query("  a question\r\n"))
    assert (match.kind, match.score, match.entry.payload, match.entry.usage) == ("exact", 1.0, b"answer", Usage(1, 2))


async def test_a_stored_answer_is_found_by_meaning(cache):
    await _answer(cache, Query("how to reset my password"))
    match = await cache.lookup(Query("how to reset a password"))
    assert isinstance(match, Match)
    assert match.kind == "semantic"
    assert 0.5 <= match.score < 1.0


async def test_a_miss_says_why_and_names_the_nearest(cache):
    assert (await cache.lookup(Query("how to reset my password"))).reason == "empty"
    await _answer(cache, Query("how to reset my password"))
    miss = await cache.lookup(Query("how do I boil an egg"))
    assert miss.reason == "below-threshold"
    assert miss.nearest.entry.text == "how to reset my password"


# Embeddings


async def test_a_miss_and_its_store_embed_once(cache, embedder):
    await _answer(cache, Query("a question"))
    assert embedder.texts == ["a question"]


async def test_an_exact_hit_embeds_nothing(cache, embedder):
    await _answer(cache, Query("a question"))
    await cache.lookup(Query("a question"))
    assert embedder.texts == ["a question"]


async def test_an_exact_only_question_embeds_nothing(cache, embedder):
    query = Query("a question", semantic=False)
    await _answer(cache, query)
    assert (await cache.lookup(query)).exact
    assert embedder.texts == []


async def test_an_answer_without_a_lookup_is_embedded_when_it_is_stored(cache, embedder):
    await cache.store(cache.target.unseen(Query("a question of mine")), b"answer", None)
    assert embedder.texts == ["a question of mine"]
    assert (await cache.lookup(Query("one question of mine"))).kind == "semantic"


async def test_without_an_embedder_only_exact_matches_are_found(form):
    cache = Either(SemanticCache(None, MemoryStore()), form)
    await _answer(cache, Query("a question"))
    assert (await cache.lookup(Query("a question"))).exact
    assert (await cache.lookup(Query("a question?"))).reason == "no-embedder"


# Time


async def test_reading_never_extends_a_life(cache, clock):
    await _answer(cache, Query("how to reset my password"))
    for _ in range(5):
        clock.now += 1
        assert (await cache.lookup(Query("how to reset my password"))).exact
        assert isinstance(await cache.lookup(Query("how to reset a password")), Match)
    clock.now += 9
    assert isinstance(await cache.lookup(Query("how to reset my password")), Miss)
    assert isinstance(await cache.lookup(Query("how to reset a password")), Miss)


async def test_the_life_of_an_answer_begins_when_it_is_stored(cache, clock):
    miss = await cache.lookup(Query("a question"))
    clock.now += 100
    entry = await cache.store(miss, b"answer", None)
    assert entry.created == clock.now
    assert clock.now + 0.9 * 6 <= entry.expires <= clock.now + 6


async def test_without_a_ttl_answers_stay(embedder, store, clock, form):
    cache = Either(SemanticCache(embedder, store, clock=clock), form)
    await _answer(cache, Query("a question"))
    clock.now += 1e9
    assert (await cache.lookup(Query("a question"))).exact


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
def test_a_ttl_that_cannot_work_is_refused(ttl):
    with pytest.raises(ConfigError, match="ttl"):
        SemanticCache(None, MemoryStore(), ttl=ttl)


# Never another's answer


@pytest.mark.parametrize(
    "other", [Query("a question of mine", scope="other model"), Query("a question of mine", namespace="other tenant")]
)
async def test_the_same_prompt_elsewhere_is_another_question(cache, other):
    await _answer(cache, Query("a question of mine"), b"ours")
    assert isinstance(await cache.lookup(other), Miss)
    await _answer(cache, other, b"theirs")
    assert (await cache.lookup(Query("a question of mine"))).entry.payload == b"ours"
    assert (await cache.lookup(other)).entry.payload == b"theirs"
    near = Query("one question of mine", other.scope, other.namespace)
    assert (await cache.lookup(near)).entry.payload == b"theirs"
    assert (await cache.lookup(Query("one question of mine"))).entry.payload == b"ours"


async def test_a_scope_and_a_namespace_are_not_interchangeable(cache):
    await _answer(cache, Query("a question", scope="x", namespace="y"))
    assert isinstance(await cache.lookup(Query("a question", scope="y", namespace="x")), Miss)


async def test_vectors_of_another_embedder_are_never_compared(store, form):
    one, other = CountingEmbedder(), CountingEmbedder()
    other.model = "another"
    first, second = (Either(SemanticCache(e, store, policy=LOOSE), form) for e in (one, other))
    await _answer(first, Query("a question of mine"))
    for text in ("a question of mine", "one question of mine"):
        assert isinstance(await second.lookup(Query(text)), Miss)
    assert isinstance(await first.lookup(Query("one question of mine")), Match)


async def test_another_secret_is_another_namespace(store, form):
    caches = [Either(SemanticCache(None, store, namespace_secret=secret), form) for secret in (b"one", b"two")]
    await _answer(caches[0], Query("a question", namespace="tenant"))
    assert isinstance(await caches[1].lookup(Query("a question", namespace="tenant")), Miss)
    with pytest.raises(ConfigError, match="64"):
        SemanticCache(None, store, namespace_secret=b"x" * 65)


async def test_stores_never_see_the_name_of_a_tenant(cache, store):
    entry = await cache.store(await cache.lookup(Query("q", "scope", "tenant")), b"", None)
    assert "tenant" not in f"{entry.namespace} {entry.scope} {entry.id}"


async def test_clear_forgets_one_tenant_or_all(cache):
    for namespace in ("ours", "theirs", "others"):
        await _answer(cache, Query("a question", namespace=namespace))
    await cache.clear("ours")
    found = [await cache.lookup(Query("a question", namespace=name)) for name in ("ours", "theirs", "others")]
    assert [isinstance(answer, Match) for answer in found] == [False, True, True]
    await cache.clear()
    assert isinstance(await cache.lookup(Query("a question", namespace="theirs")), Miss)


# What cannot be embedded


@pytest.mark.parametrize(
    "answer",
    [[[float("nan")] * 256], [[float("inf")] * 256], [[1.0] * 255], [[1.0] * 256] * 2, [1.0] * 256],
    ids=["nan", "inf", "short", "two", "flat"],
)
async def test_an_unusable_vector_is_never_stored(cache, embedder, store, answer):
    import numpy as np

    embedder.answer = np.array(answer, dtype=np.float32)
    with pytest.raises(EmbeddingError):
        await cache.lookup(Query("a question"))
    with pytest.raises(EmbeddingError):
        await cache.store(cache.target.unseen(Query("a question")), b"answer", None)
    assert len(store) == 0


async def test_a_failed_embedding_is_not_stored(cache, embedder, store):
    embedder.error = EmbeddingError("down")
    with pytest.raises(EmbeddingError):
        await cache.lookup(Query("a question"))
    assert len(store) == 0


@pytest.mark.parametrize("name", ["get", "search", "put"])
async def test_an_error_of_the_store_reaches_the_caller(cache, store, name):
    store.breaks, store.error = {name}, StoreError("down")
    with pytest.raises(StoreError, match="down"):
        await cache.store(await cache.lookup(Query("a question")), b"answer", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("x" * 1_000_000, "too-long", id="1 MB"),
        pytest.param("lone \ud800", "broken-unicode", id="surrogate"),
        pytest.param("", "empty-text", id="empty"),
        pytest.param("a " * 300, "beyond-window", id="long"),
        pytest.param("Summarise this:\nit is short", "several-lines", id="two lines"),
    ],
)
async def test_a_text_no_encoder_reads_is_matched_exactly(cache, embedder, text, reason):
    embedder.max_tokens = 256
    assert (await cache.lookup(Query(text))).reason == reason
    await _answer(cache, Query(text))
    assert (await cache.lookup(Query(text))).exact
    assert isinstance(await cache.lookup(Query(text + "!")), Miss)
    assert "" not in embedder.texts
    assert text not in embedder.texts


async def test_chinese_is_matched_exactly_with_an_english_encoder(minilm, form):
    cache = Either(SemanticCache(minilm, MemoryStore(), policy=LOOSE), form)
    query = Query("如何重置我的密码")
    assert (await cache.lookup(query)).reason == "unknown-words"
    await _answer(cache, query)
    assert (await cache.lookup(query)).exact
    assert isinstance(await cache.lookup(Query("如何删除我的密码")), Miss)


async def test_a_long_shared_beginning_does_not_make_two_questions_one(minilm, form):
    cache = Either(SemanticCache(minilm, MemoryStore(), policy=LOOSE), form)
    preamble = "You are given the minutes of a meeting. " * 40
    await _answer(cache, Query(preamble + "Who spoke first?"))
    miss = await cache.lookup(Query(preamble + "What does it cost?"))
    assert (miss.vector, miss.nearest) == (None, None)


async def test_a_real_encoder_finds_a_paraphrase(minilm, form):
    cache = Either(SemanticCache(minilm, MemoryStore(), policy=Threshold(0.85)), form)
    await _answer(cache, Query("How do I reset my password?"))
    assert (await cache.lookup(Query("How can I reset my password?"))).kind == "semantic"
    assert isinstance(await cache.lookup(Query("How do I boil an egg?")), Miss)


async def test_the_policy_says_how_many_neighbours_it_wants(embedder, form):
    asked = []

    class Spy(MemoryStore):
        def search(self, vector, *, scope, limit, now):
            asked.append(limit)
            return super().search(vector, scope=scope, limit=limit, now=now)

        async def asearch(self, vector, *, scope, limit, now):
            asked.append(limit)
            return await super().asearch(vector, scope=scope, limit=limit, now=now)

    cache = Either(SemanticCache(embedder, Spy(), policy=Threshold(0.5, neighbours=7)), form)
    await cache.lookup(Query("a question"))
    # And one more, which may be a tombstone.
    assert asked == [8]


async def test_closing_the_cache_closes_its_store(form):
    closed = []

    class Spy(MemoryStore):
        def close(self):
            closed.append(True)

    await Either(SemanticCache(None, Spy()), form).close()
    assert closed == [True]
