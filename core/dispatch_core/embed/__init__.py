"""Embedders: adapters from an encoder to the `Embedder` port."""

from dispatch_core.embed.default import default_embedder
from dispatch_core.embed.hashing import HashingEmbedder
from dispatch_core.embed.memo import MemoEmbedder
from dispatch_core.embed.onnx import OnnxEmbedder
from dispatch_core.embed.sentence import SentenceTransformerEmbedder

__all__ = ["HashingEmbedder", "MemoEmbedder", "OnnxEmbedder", "SentenceTransformerEmbedder", "default_embedder"]
