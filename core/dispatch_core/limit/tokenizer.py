"""Exact token counts by tiktoken, for callers who want them more than speed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.errors import MissingExtra

if TYPE_CHECKING:
    from tiktoken import Encoding

_FALLBACK = "o200k_base"
_VOCABULARIES = {"cl100k_base": "cl100k_base", "o200k_base": "o200k_base", "o200k_harmony": "o200k_base"}
_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_CHOSEN = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
# tiktoken fails on a million spaces in a row and slows down on a million of any one character.
_PIECE = 10_000

_loading = threading.Lock()


def tiktoken_counter(model: str = "gpt-4o") -> Callable[[str], int]:
    """Counts a text's tokens as ``model`` does; of an unknown model, as GPT-4o does. Any thread may call it.

    Costs 220–350 µs per 1,000 tokens and blocks the event loop meanwhile. Texts of more than 10,000 characters are
    counted in pieces, each of which may add a token or two. Loaded here and once: tiktoken downloads a vocabulary
    on first use, without a timeout, unless ``TIKTOKEN_CACHE_DIR`` or an installed llama-index holds it. Raises
    MissingExtra without tiktoken.
    """
    encoding = _loaded(model)

    def count(text: str) -> int:
        starts = range(0, len(text), _PIECE)
        return sum(len(encoding.encode(text[at : at + _PIECE], disallowed_special=())) for at in starts)

    return count


def _loaded(model: str) -> Encoding:
    try:
        import tiktoken
    except ImportError as error:
        raise MissingExtra("exact token counts", "tiktoken") from error
    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        name = _FALLBACK
    with _loading, _bundled(name):
        return tiktoken.get_encoding(name)


@contextmanager
def _bundled(encoding: str) -> Iterator[None]:
    """Let tiktoken read the vocabulary that llama-index ships, for this load only; the caller holds the lock."""
    folder = None if any(name in os.environ for name in _CHOSEN) else _folder_with(encoding)
    if folder is None:
        yield
        return
    os.environ[_CHOSEN[0]] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_CHOSEN[0], None)


def _folder_with(encoding: str) -> Path | None:
    """Only a folder that has the file: into any other, tiktoken would write its download."""
    if encoding not in _VOCABULARIES:
        return None
    try:
        spec = find_spec("llama_index")
    except (ImportError, ValueError):
        return None
    source = _SOURCE.format(_VOCABULARIES[encoding])
    file = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    folders = (
        Path(at, "core", "_static", "tiktoken_cache") for at in (spec and spec.submodule_search_locations) or ()
    )
    return next((folder for folder in folders if (folder / file).is_file()), None)
