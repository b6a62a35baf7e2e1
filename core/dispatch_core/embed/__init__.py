"""Embedders: adapters from an encoder to the `Embedder` port, and wrappers around one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.embed.batching import BatchingEmbedder
    from dispatch_core.embed.default import default_embedder
    from dispatch_core.embed.hashing import HashingEmbedder
    from dispatch_core.embed.memo import MemoEmbedder
    from dispatch_core.embed.onnx import OnnxEmbedder
    from dispatch_core.embed.openai import OpenAIEmbedder
    from dispatch_core.embed.openvino import OpenVinoEmbedder
    from dispatch_core.embed.redismemo import RedisMemoEmbedder
    from dispatch_core.embed.sentence import SentenceTransformerEmbedder
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "BatchingEmbedder": "batching",
            "HashingEmbedder": "hashing",
            "MemoEmbedder": "memo",
            "OnnxEmbedder": "onnx",
            "OpenAIEmbedder": "openai",
            "OpenVinoEmbedder": "openvino",
            "RedisMemoEmbedder": "redismemo",
            "SentenceTransformerEmbedder": "sentence",
            "default_embedder": "default",
        },
    )

__all__ = [
    "BatchingEmbedder",
    "HashingEmbedder",
    "MemoEmbedder",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "OpenVinoEmbedder",
    "RedisMemoEmbedder",
    "SentenceTransformerEmbedder",
    "default_embedder",
]
