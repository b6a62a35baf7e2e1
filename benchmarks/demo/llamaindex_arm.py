"""The LlamaIndex program: a query engine over the handbook. Dispatching wraps the model, nothing else changes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI
from openai import DefaultAsyncHttpxClient

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


@asynccontextmanager
async def bare(provider: Provider, index: VectorStoreIndex) -> AsyncIterator[Ask]:
    """With the usual remedy: LlamaIndex and the SDK both retry, six times seven attempts together."""
    async with _connected(provider) as sdk:
        yield _asker(index, OpenAI(**sdk, max_retries=6))


@asynccontextmanager
async def dispatched(provider: Provider, index: VectorStoreIndex, embedder: Embedder) -> AsyncIterator[Ask]:
    quota = provider.quota
    async with _connected(provider) as sdk:
        llm = DispatchLLM(
            OpenAI(**sdk, max_retries=0),
            cache=SemanticCache(embedder, MemoryStore()),
            rate_limiter=TokenLimiter(rpm=quota.rpm, tpm=quota.tpm, window=quota.window),
        )
        yield _asker(index, llm)


@asynccontextmanager
async def _connected(provider: Provider) -> AsyncIterator[dict[str, Any]]:
    """Where to call and with what: connections that end with the loop of the arm, not in the next one."""
    async with DefaultAsyncHttpxClient() as client:
        yield {"model": MODEL, "api_base": provider.url, "api_key": "none", "async_http_client": client}
