"""Encoders as ONNX graphs: no torch, no transformers, and a short text in a third of the time."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dispatch_core._fork import renew_in_child
from dispatch_core.embed._workers import Workers
from dispatch_core.embed.encoder import POOLED_OUTPUT, Graph, GraphEncoder
from dispatch_core.embed.graph_folder import (
    GraphFolder,
    checked_quantization,
    exported_folder,
    find_folder,
    names_folder,
    read_folder,
    space_of,
)
from dispatch_core.embed.pooling import Floats, Ints
from dispatch_core.embed.tokens import SHORT, Tokens
from dispatch_core.errors import ConfigError, DispatchError, EmbeddingError, MissingExtra
from dispatch_core.types import Fit, Matrix

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_TEXTS_PER_WORKER = 64


class OnnxEmbedder:
    """An encoder as an ONNX graph, run by onnxruntime: needs neither torch nor transformers.

    ``model`` is the name of a sentence-transformers model, or a folder. Its graph is looked for where
    ``dispatcher export-model NAME`` puts it, then in the hub's cache, then on the hub (folders with
    ``onnx/model.onnx``; with ``HF_HUB_OFFLINE=1`` it is not asked). ``path`` is the folder to load instead, and
    ``model`` then the id only. Nothing is loaded before the first embedding; call `load` to pay earlier.

    ``prompt`` is put in front of each text (``"query: "`` for e5), in place of the one the model may have by default.
    ``max_tokens`` is the window, if not the model's own. ``threads`` are the workers of asynchronous calls, one per
    core if None; a blocking call runs in its caller's thread. No call uses more than one core at a time: many small
    ones use all of them. ``providers`` are onnxruntime's.

    ``quantization="int8"`` takes a graph made by ``dispatcher export-model NAME --int8``. It is faster and another
    vector space: a threshold found with the exact graph is wrong for it. Calibrate anew.

    Raises `ConfigError` for settings that cannot work, `MissingExtra` without onnxruntime and tokenizers, and
    `EmbeddingError` if there is no graph, or a text cannot be embedded.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        path: str | Path | None = None,
        quantization: str | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        for name, value in (("max_tokens", max_tokens), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self._quantization = checked_quantization(quantization)
        self._name = model or (DEFAULT_MODEL if path is None else str(path))
        self._path = Path(path) if path is not None else None
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._threads = threads or _cores()
        self._providers = list(providers)
        self.model = self._space(named=model is not None)
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """A forked child has neither the workers nor whoever held a lock, be it inside the runtime."""
        self._loading = threading.Lock()
        self._encoder: GraphEncoder | None = None
        self._workers = Workers(self._threads, "dispatch-embed")

    def load(self) -> None:
        """Load the graph now instead of at the first embedding."""
        self._loaded()

    @property
    def dims(self) -> int:
        return self._loaded().dims

    @property
    def max_tokens(self) -> int:
        return self._loaded().max_tokens

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows. Text beyond the window is cut off."""
        encoder = self._loaded()
        try:
            return encoder.rows(texts)
        except Exception as error:
            raise EmbeddingError(f"{self.model} could not embed {len(texts)} texts") from error

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        if len(texts) <= _TEXTS_PER_WORKER:
            return await self._workers.run(self.embed, texts)
        starts = range(0, len(texts), _TEXTS_PER_WORKER)
        parts = [texts[start : start + _TEXTS_PER_WORKER] for start in starts]
        return np.concatenate(await asyncio.gather(*(self._workers.run(self.embed, part) for part in parts)))

    def fit(self, text: str) -> Fit:
        encoder = self._loaded()
        try:
            return encoder.fit(text)
        except Exception as error:
            raise EmbeddingError(f"{self.model} could not tokenise a text") from error

    async def afit(self, text: str) -> Fit:
        if len(text) <= SHORT and self._encoder is not None:
            # Some 30 µs, less than asking another thread.
            return self.fit(text)
        return await self._workers.run(self.fit, text)

    def _loaded(self) -> GraphEncoder:
        if self._encoder is not None:
            return self._encoder
        with self._loading:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def _load(self) -> GraphEncoder:
        self._needs()
        folder = self._folder()
        prompt = folder.prompt if self._prompt is None else self._prompt
        if prompt and not folder.pools_prompt:
            raise ConfigError(f"{self.model} leaves the prompt out of its pooling: use SentenceTransformerEmbedder")
        try:
            limit = self._max_tokens or folder.max_tokens
            tokens = Tokens(folder.tokenizer, limit, prompt=prompt, lower=folder.lower)
            return GraphEncoder(folder, tokens, self._open(folder))
        except DispatchError:
            raise
        except Exception as error:
            raise EmbeddingError(f"the graph of {self.model!r} in {folder.graph.parent} cannot be loaded") from error

    def _needs(self) -> None:
        """Raise `MissingExtra` before anything is searched for or downloaded."""
        try:
            import onnxruntime  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise MissingExtra(type(self).__name__, "onnx") from error

    def _open(self, folder: GraphFolder) -> Graph:
        return _OnnxGraph(folder.graph, self._providers)

    def _folder(self) -> GraphFolder:
        if self._path is not None:
            return read_folder(self._path)
        try:
            found = find_folder(self._name, self._quantization, download=True)
        except Exception as error:
            raise EmbeddingError(self._not_found()) from error
        if found is None:
            raise EmbeddingError(self._not_found())
        return read_folder(found)

    def _not_found(self) -> str:
        option = f" --{self._quantization}" if self._quantization else ""
        place = exported_folder(self._name, self._quantization)
        return (
            f"there is no ONNX graph of {self._name!r}, neither in {place} nor on a hub that can be reached: "
            f"make one with `dispatcher export-model {self._name}{option}` "
            "(needs pip install 'ai-dispatcher[export]')"
        )

    def _space(self, *, named: bool) -> str:
        """A folder that was exported says what it holds; a name of the caller's goes before."""
        path = self._path or Path(self._name)
        if self._path is None and not names_folder(self._name):
            return space_of(self._name, self._quantization, self._prompt)
        folder = read_folder(find_folder(str(path), self._quantization) or path)
        if self._quantization not in (None, folder.quantization):
            raise ConfigError(f"the graph in {path} is not {self._quantization}")
        name = self._name if named and self._path is not None else folder.model or self._name
        return space_of(name, folder.quantization, self._prompt)


class _OnnxGraph:
    def __init__(self, file: Path, providers: Sequence[str]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A worker that waits must leave its core to the search and to the event loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=list(providers))
        self.inputs = frozenset(given.name for given in self._session.get_inputs())
        names = [out.name for out in self._session.get_outputs()]
        self._outputs = [POOLED_OUTPUT if POOLED_OUTPUT in names else names[0]]

    def run(self, feeds: Mapping[str, Ints]) -> Floats:
        [out] = self._session.run(self._outputs, dict(feeds))
        return np.asarray(out, dtype=np.float32)


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
