"""What was typed to be taken literally: quotations and identifiers of programs."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from dispatch_core.guards.phrases import said, tokens

_MARKS = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "「": '"', "」": '"'})
_QUOTED = re.compile(
    r'"([^"\n]{1,200})"|`([^`\n]{1,200})`'
    r"|(?<![\w\'])\'([^\'\n]{1,200})\'(?![\w\'])|《([^》]{1,200})》"
)
_MARK = re.compile("[\"'`“”„«»「」《]")
_PIECES = re.compile(r"\w+|[^\w\s.,;:!?'\"`*]+")


def _pieces(text: str) -> str:
    return f" {' '.join(_PIECES.findall(unicodedata.normalize('NFKC', text).casefold()))} "


@lru_cache(maxsize=4096)
def _quoted(text: str) -> frozenset[str]:
    if not _MARK.search(text):
        return frozenset()
    found = (next((g for g in m.groups() if g), "") for m in _QUOTED.finditer(text.translate(_MARKS)))
    return frozenset(p for p in map(_pieces, found) if p.strip())


@lru_cache(maxsize=4096)
def _whole(text: str) -> str:
    return _pieces(text.translate(_MARKS))


def quote(asked: str, stored: str) -> str | None:
    """``quote``: words quoted in one text are not in the other, quoted or not."""
    a, b = _quoted(asked), _quoted(stored)
    missing = (a and any(q not in _whole(stored) for q in a)) or (b and any(q not in _whole(asked) for q in b))
    return "quote" if missing else None


@lru_cache(maxsize=4096)
def _code(text: str) -> frozenset[str]:
    return frozenset([t.word for t in tokens(text) if t.kind == "code"])


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[str]:
    words = {word.removesuffix("()") for word in said(text)}
    # "Amazon.com" is Amazon, "Node.js" is Node.
    return said(text) | words | {word.removeprefix("www.").rpartition(".")[0] for word in _code(text)}


def _said(name: str, words: frozenset[str]) -> bool:
    bare = name.removesuffix("()").removeprefix("www.")
    base, _, last = bare.rpartition(".")
    return name in words or bare in words or (last in {"com", "org", "net", "io", "js"} and base in words)


def code(asked: str, stored: str) -> str | None:
    """``code``: an identifier, path, flag or address of one text is not in the other."""
    a, b = _code(asked), _code(stored)
    missing = any(not _said(name, _words(stored)) for name in a) or any(not _said(name, _words(asked)) for name in b)
    return "code" if missing else None
