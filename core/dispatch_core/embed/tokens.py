"""What an encoder reads of a text: the ids of its tokens, up to its window."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from dispatch_core.errors import MissingExtra
from dispatch_core.types import Fit

SHORT = 4000
"""Characters from which a text is cut before it is tokenised: what lies beyond the window costs time for nothing."""

_CHARS_PER_TOKEN = 16
_REMEMBERED = 256
_UNKNOWN_ID = re.compile(rb'"unk_id":\s*(\d+)')


def head(text: str, max_tokens: int) -> str:
    """The beginning of a long text, of whole words, that probably fills a window of so many tokens.

    If it does fill the window, the ids up to there are those of the whole text: tokenizers split at blanks first.
    """
    limit = max(SHORT, _CHARS_PER_TOKEN * max_tokens)
    if len(text) <= limit:
        return text
    end = max(text.rfind(" ", 0, limit), text.rfind("\n", 0, limit))
    return text[:end] if end > 0 else text


class Tokens:
    """Ids by a ``tokenizer.json``. Thread-safe.

    A lookup asks whether a text fits and then for its embedding: the ids found for the first question are kept for
    the second, which takes them away. ``prompt`` is put in front of every text. Raises `MissingExtra` without
    tokenizers, its own errors for a text that cannot be read.
    """

    def __init__(self, file: Path, max_tokens: int, *, prompt: str = "", lower: bool = False) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtra("OnnxEmbedder", "onnx") from error
        self.max_tokens = max_tokens
        self._prompt = prompt
        self._lower = lower
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._added = self._tokenizer.num_special_tokens_to_add(False)
        self._unknown = _unknown_id(self._tokenizer, file)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, list[int]] = OrderedDict()

    def fit(self, text: str) -> Fit:
        """Count all tokens of the text, also those beyond the window."""
        read = self._read(text)
        fit = Fit(tokens=len(read) + self._added, unknown=read.ids.count(self._unknown))
        self._keep(text, self._cut(read))
        return fit

    def ids(self, text: str) -> list[int]:
        """The ids with the special ones, at most ``max_tokens``."""
        with self._lock:
            kept = self._kept.pop(text, None)
        if kept is not None:
            return kept
        start = head(text, self.max_tokens)
        read = self._read(start)
        if len(start) < len(text) and len(read) + self._added <= self.max_tokens:
            read = self._read(text)
        return self._cut(read)

    def _read(self, text: str) -> Any:
        text = self._prompt + text
        return self._tokenizer.encode(text.lower() if self._lower else text, add_special_tokens=False)

    def _cut(self, read: Any) -> list[int]:
        read.truncate(max(0, self.max_tokens - self._added))
        ids: list[int] = self._tokenizer.post_process(read).ids
        return ids

    def _keep(self, text: str, ids: list[int]) -> None:
        if len(text) > SHORT:
            return
        with self._lock:
            self._kept[text] = ids
            if len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)


def _unknown_id(tokenizer: Any, file: Path) -> int | None:
    """WordPiece, BPE and WordLevel name the token; Unigram has its id, but shows it in the file only."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        found: int | None = tokenizer.token_to_id(model.unk_token) if model.unk_token else None
        return found
    written = _UNKNOWN_ID.search(file.read_bytes())
    return int(written[1]) if written else None
