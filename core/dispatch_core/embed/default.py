"""Which embedder a name means, when nobody says which runtime is to run it."""

from __future__ import annotations

import importlib.util

from dispatch_core.embed.graph_folder import find_folder
from dispatch_core.embed.onnx import DEFAULT_MODEL, OnnxEmbedder
from dispatch_core.embed.sentence import SentenceTransformerEmbedder
from dispatch_core.errors import ConfigError
from dispatch_core.ports import Embedder

ONNX = "onnx:"
LOCAL = "local:"


def default_embedder(name: str | None = None) -> Embedder:
    """The embedder of a model by name or path; without one, all-MiniLM-L6-v2.

    It runs as an ONNX graph if onnxruntime and tokenizers are installed and a graph of it is on this machine (made by
    ``dispatcher export-model``, or in the hub's cache), else by sentence-transformers; the vectors are the same.
    ``"onnx:NAME"`` and ``"local:NAME"`` insist on one of the two. Nothing is loaded yet, and nothing asks a network.
    """
    given = name if name is not None else DEFAULT_MODEL
    model = given.removeprefix(ONNX).removeprefix(LOCAL)
    if not model:
        raise ConfigError(f"{given!r} names no model")
    if given.startswith(ONNX):
        return OnnxEmbedder(model)
    if given.startswith(LOCAL) or not _graph_at_hand(model):
        return SentenceTransformerEmbedder(model)
    return OnnxEmbedder(model)


def _graph_at_hand(model: str) -> bool:
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "tokenizers")):
        return False
    return find_folder(model) is not None
