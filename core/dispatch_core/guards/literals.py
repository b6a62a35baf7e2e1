"""What was typed to be taken literally: quotations and identifiers of programs."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from dispatch_core.guards.phrases import tokens

_MARKS = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "「": '"', "」": '"'})
_QUOTED = re.compile(
    r'"([^"\n]{1,200})"|`([^`\n]{1,200})`'
    r"|(?<![\w\'])\'([^\'\n]{1,200})\'(?![\w\'])|《([^》]{1,200})》"
)
_PIECES = re.compile(r"\w+|[^\w\s.,;:!?'\"`*]+")


def _pieces(text: str) -> str:
    return f" {' '.join(_PIECES.findall(unicodedata.normalize('NFKC', text).casefold()))} "


@lru_cache(maxsize=4096)
def _quoted(text: str) -> tuple[frozenset[str], str]:
    plain = text.translate(_MARKS)
    found = (next((g for g in m.groups() if g), "") for m in _QUOTED.finditer(plain))
    return frozenset(p for p in map(_pieces, found) if p.strip()), _pieces(plain)


def quote(asked: str, stored: str) -> str | None:
    """``quote``: words quoted in one text are not in the other, quoted or not."""
    (a, a_text), (b, b_text) = _quoted(asked), _quoted(stored)
    missing = any(q not in b_text for q in a) or any(q not in a_text for q in b)
    return "quote" if missing else None


@lru_cache(maxsize=4096)
def _code(text: str) -> tuple[frozenset[str], frozenset[str]]:
    found = tokens(text)
    words = {t.word for t in found}
    words |= {t.word.removesuffix("()") for t in found}
    # "Amazon.com" is Amazon, "Node.js" is Node.
    words |= {t.word.removeprefix("www.").rpartition(".")[0] for t in found if t.kind == "code"}
    return frozenset(t.word for t in found if t.kind == "code"), frozenset(words)


def _said(name: str, words: frozenset[str]) -> bool:
    bare = name.removesuffix("()").removeprefix("www.")
    base, _, last = bare.rpartition(".")
    return name in words or bare in words or (last in {"com", "org", "net", "io", "js"} and base in words)


def code(asked: str, stored: str) -> str | None:
    """``code``: an identifier, path, flag or address of one text is not in the other."""
    (a, a_words), (b, b_words) = _code(asked), _code(stored)
    missing = any(not _said(name, b_words) for name in a) or any(not _said(name, a_words) for name in b)
    return "code" if missing else None
