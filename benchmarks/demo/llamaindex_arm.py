"""The LlamaIndex program: a query engine over the handbook. Dispatching wraps the model, nothing else changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI

from benchmarks.demo.provider import Provider
from benchmarks.demo.replay import Ask
from benchmarks.demo.trace import HANDBOOK
from dispatch_core import Embedder, MemoryStore, SemanticCache, TokenLimiter
from llamaindex_dispatch import DispatchLLM

# Its warning at every retry would bury the progress bars; the table counts them.
logging.getLogger("llama_index.llms.openai").setLevel(logging.ERROR)

MODEL = "gpt-4o-mini"  # a name that LlamaIndex knows the window of; the simulator answers to any


class HandbookEmbedding(BaseEmbedding):
    """The same encoder for retrieval, through LlamaIndex's interface."""

    encoder: Any

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = self.encoder.embed([text])[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self.encoder.aembed([query]))[0].tolist()
        return vector


def build_index(embedder: Embedder) -> VectorStoreIndex:
    documents = SimpleDirectoryReader(str(HANDBOOK)).load_data()
    return VectorStoreIndex.from_documents(documents, embed_model=HandbookEmbedding(encoder=embedder))


def _asker(index: VectorStoreIndex, llm: LLM) -> Ask:
    engine = index.as_query_engine(llm=llm, similarity_top_k=2)

    async def ask(question: str) -> str:
        return str(await engine.aquery(question))

    return ask


@contextmanager
def bare(provider: Provider, index: VectorStoreIndex) -> Iterator[Ask]:
    """With the usual remedy: LlamaIndex and the SDK both retry, six times seven attempts together."""
    yield _asker(index, OpenAI(model=MODEL, api_base=provider.url, api_key="none", max_retries=6))


@contextmanager
def dispatched(provider: Provider, index: VectorStoreIndex, embedder: Embedder) -> Iterator[Ask]:
    quota = provider.quota
    llm = DispatchLLM(
        OpenAI(model=MODEL, api_base=provider.url, api_key="none", max_retries=0),
        cache=SemanticCache(embedder, MemoryStore()),
        rate_limiter=TokenLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window),
    )
    yield _asker(index, llm)
