"""Embedders: adapters from an encoder to the `Embedder` port."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.embed.default import default_embedder
    from dispatch_core.embed.hashing import HashingEmbedder
    from dispatch_core.embed.memo import MemoEmbedder
    from dispatch_core.embed.onnx import OnnxEmbedder
    from dispatch_core.embed.sentence import SentenceTransformerEmbedder
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "HashingEmbedder": "hashing",
            "MemoEmbedder": "memo",
            "OnnxEmbedder": "onnx",
            "SentenceTransformerEmbedder": "sentence",
            "default_embedder": "default",
        },
    )

__all__ = [
    "HashingEmbedder",
    "MemoEmbedder",
    "OnnxEmbedder",
    "SentenceTransformerEmbedder",
    "default_embedder",
]
