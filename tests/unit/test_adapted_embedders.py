"""Embedders of LangChain and LlamaIndex as the core's: names of vector spaces, sides, and what cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes import FORMS, Either
from framework_embedders import HashingEmbedding, HashingEmbeddings
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings

from dispatch_core import ConfigError, EmbeddingError, HashingEmbedder, MemoryStore, Query
from dispatch_core import SemanticCache as CoreCache
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import LangChainEmbedder
from llamaindex_dispatch import LlamaIndexEmbedder


class Told(Embeddings):
    """Returns what it is told to, or raises it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def embed_documents(self, texts: list[str]) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])


class ToldEmbedding(HashingEmbedding):
    answer: Any = None

    def _get_query_embedding(self, query: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Cached(Embeddings):
    """As `CacheBackedEmbeddings` holds what it caches."""

    def __init__(self, underlying_embeddings: Embeddings) -> None:
        self.underlying_embeddings = underlying_embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.underlying_embeddings.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.underlying_embeddings.embed_query(text)


class Wrapped(Cached):
    """Holds another one under a name of its own."""

    def __init__(self, other: Embeddings) -> None:
        self.other = other


def openai(**settings: Any) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(**{"model": "text-embedding-3-small", "api_key": "secret", **settings})


def named(embeddings: Embeddings) -> str:
    return LangChainEmbedder(embeddings).model


def test_a_name_has_all_that_changes_the_vectors_and_nothing_else():
    name = named(openai())
    assert name.startswith("langchain:OpenAIEmbeddings:text-embedding-3-small")
    assert named(openai(dimensions=256)).startswith("langchain:OpenAIEmbeddings:text-embedding-3-small:256")
    for other in ({"dimensions": 256}, {"model": "other"}, {"deployment": "mine"}, {"base_url": "http://there"}):
        assert named(openai(**other)) != name
    for same in ({"api_key": "another"}, {"chunk_size": 7}, {"max_retries": 9}, {"request_timeout": 3}):
        assert named(openai(**same)) == name
    assert named(HashingEmbeddings(8)) != named(HashingEmbeddings(16))
    assert "secret" not in name


def test_a_cache_in_front_changes_no_name_and_a_wrapper_is_not_what_it_wraps():
    inner, other = HashingEmbeddings(8), HashingEmbeddings(16)
    assert named(Cached(inner)) == named(inner)
    assert len({named(Wrapped(inner)), named(Wrapped(other)), named(inner)}) == 3


def test_llamaindex_names_its_models_too():
    def name(**settings: Any) -> str:
        return LlamaIndexEmbedder(HashingEmbedding(**settings)).model

    assert name(model_name="m").startswith("llamaindex:HashingEmbedding:m")
    assert name(model_name="m") == name(model_name="m", embed_batch_size=7, num_workers=2)
    assert len({name(), name(model_name="m"), name(dims=32)}) == 3
    assert LlamaIndexEmbedder(HashingEmbedding(), model="mine").model == "mine"


def test_the_window_is_the_models_if_it_says_so():
    assert LangChainEmbedder(openai()).max_tokens == 8191
    assert LangChainEmbedder(HashingEmbeddings()).max_tokens == 512
    assert LangChainEmbedder(openai(), max_tokens=100).max_tokens == 100


@pytest.mark.parametrize("form", FORMS)
async def test_texts_are_embedded_as_queries_unless_it_is_said_otherwise(form):
    [query, document] = HashingEmbedder(64).embed(["query: a text", "passage: a text"])
    for embedder, expected in (
        (LangChainEmbedder(HashingEmbeddings()), query),
        (LangChainEmbedder(HashingEmbeddings(), side="document"), document),
        (LlamaIndexEmbedder(HashingEmbedding()), query),
    ):
        assert np.allclose(await Either(embedder, form).embed(["a text"]), [expected], atol=1e-6)


def test_the_side_is_part_of_the_name():
    assert named(HashingEmbeddings()) != LangChainEmbedder(HashingEmbeddings(), side="document").model
    with pytest.raises(ConfigError):
        LangChainEmbedder(HashingEmbeddings(), side="both")  # type: ignore[arg-type]


BROKEN = {
    "not finite": [float("nan"), 1.0],
    "endless": [float("inf"), 1.0],
    "no direction": [0.0, 0.0],
    "nothing": [],
    "no numbers": ["a", "b"],
    "none": None,
    "a number": 1.0,
    "too deep": [[1.0]],
    "an error": RuntimeError("it quotes the secret text"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_vector_is_an_embedding_error(form, answer):
    for embedder in (LangChainEmbedder(Told(answer)), LlamaIndexEmbedder(ToldEmbedding(answer=answer))):
        with pytest.raises(EmbeddingError) as failed:
            await Either(embedder, form).embed(["the secret text"])
        assert "secret" not in str(failed.value)


async def test_a_model_that_changes_its_size_is_an_embedding_error():
    told = Told([1.0, 2.0])
    embedder = LangChainEmbedder(told)
    assert embedder.dims == 2
    told._answer = [1.0, 2.0, 3.0]
    with pytest.raises(EmbeddingError, match="3 dimensions instead of 2"):
        await embedder.aembed(["a"])


def test_only_an_embedding_model_of_llamaindex_is_taken():
    with pytest.raises(ConfigError, match="got str"):
        LlamaIndexEmbedder("text-embedding-3-small")  # type: ignore[arg-type]


def test_a_core_cache_answers_by_the_meaning_that_llamaindex_sees():
    cache = CoreCache(LlamaIndexEmbedder(HashingEmbedding()), MemoryStore())
    cache.store(cache.lookup(Query("What is the capital of France?")), b"Paris")
    assert cache.lookup(Query("what is the capital of france")).entry.payload == b"Paris"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0.0)) as running:
        yield running


async def test_embeddings_of_langchain_speak_to_the_simulator(simulator):
    embeddings = openai(base_url=simulator.url, dimensions=64, check_embedding_ctx_length=False)
    embedder = LangChainEmbedder(embeddings)
    rows = embedder.embed(["reset my password", "how to reset a password"])
    assert rows.shape == (2, 64)
    assert np.allclose(rows, await embedder.aembed(["reset my password", "how to reset a password"]), atol=1e-6)
    embeddings.client._client.close()
    await embeddings.async_client._client.close()
