"""Embedders: adapters from an encoder to the `Embedder` port, and wrappers around one."""

from dispatch_core.embed.batching import BatchingEmbedder
from dispatch_core.embed.hashing import HashingEmbedder
from dispatch_core.embed.memo import MemoEmbedder
from dispatch_core.embed.openai import OpenAIEmbedder
from dispatch_core.embed.redismemo import RedisMemoEmbedder
from dispatch_core.embed.sentence import SentenceTransformerEmbedder

__all__ = [
    "BatchingEmbedder",
    "HashingEmbedder",
    "MemoEmbedder",
    "OpenAIEmbedder",
    "RedisMemoEmbedder",
    "SentenceTransformerEmbedder",
]
