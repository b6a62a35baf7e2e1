"""Embedders as the frameworks have them, that hear letters and words: texts that share some lie close."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding
from pydantic import PrivateAttr

from dispatch_core import HashingEmbedder

SCALE = 3.0
"""Frameworks do not promise unit length."""


class HashingEmbeddings(Embeddings):
    """Of LangChain. Documents get another vector than queries, as with models that want an instruction."""

    def __init__(self, dims: int = 64) -> None:
        self.dims = dims

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [_numbers(f"passage: {text}", self.dims) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return _numbers(f"query: {text}", self.dims)


class HashingEmbedding(BaseEmbedding):
    """Of LlamaIndex; the same."""

    dims: int = 64
    _asked: list[str] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "HashingEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        self._asked.append(query)
        return _numbers(f"query: {query}", self.dims)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _numbers(f"passage: {text}", self.dims)


def _numbers(text: str, dims: int) -> list[Any]:
    [row] = HashingEmbedder(dims).embed([text])
    numbers: list[Any] = (row * SCALE).tolist()
    return numbers
