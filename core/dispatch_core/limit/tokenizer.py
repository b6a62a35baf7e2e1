"""Exact token counts by tiktoken, for callers who want them more than speed."""

from __future__ import annotations

import hashlib
import os
import tempfile
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


def counter_at_hand(model: str) -> Callable[[str], int] | None:
    """The counter of ``model`` if tiktoken knows it and its vocabulary is here already; None if it is to be
    downloaded first."""
    if find_spec("tiktoken") is None:
        return None
    import tiktoken

    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    return tiktoken_counter(model) if _at_hand(name) else None


def _at_hand(encoding: str) -> bool:
    """Will tiktoken load it without asking a network?"""
    from tiktoken import registry

    if encoding in registry.ENCODINGS or _bundled_folder(encoding) is not None:
        return True
    own = str(Path(tempfile.gettempdir(), "data-gym-cache"))
    folder = next((os.environ[name] for name in _CHOSEN if name in os.environ), own)
    return bool(folder) and encoding in _VOCABULARIES and Path(folder, _file_of(encoding)).is_file()


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
    folder = _bundled_folder(encoding)
    if folder is None:
        yield
        return
    os.environ[_CHOSEN[0]] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_CHOSEN[0], None)


def _bundled_folder(encoding: str) -> Path | None:
    """Only a folder that has the file: into any other, tiktoken would write its download. A folder that the user
    chose goes before."""
    if encoding not in _VOCABULARIES or any(name in os.environ for name in _CHOSEN):
        return None
    try:
        spec = find_spec("llama_index")
    except (ImportError, ValueError):
        return None
    folders = (
        Path(at, "core", "_static", "tiktoken_cache") for at in (spec and spec.submodule_search_locations) or ()
    )
    return next((folder for folder in folders if (folder / _file_of(encoding)).is_file()), None)


def _file_of(encoding: str) -> str:
    """The name under which tiktoken keeps a vocabulary."""
    source = _SOURCE.format(_VOCABULARIES[encoding])
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
