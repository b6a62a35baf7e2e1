"""JSON within a text: where a value ends, and the same value without the white space around its tokens. Pure."""

from __future__ import annotations

import json
import re

_decoder = json.JSONDecoder()
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|\s+')


def end_of_value(text: str, at: int) -> int | None:
    """Where the object or array that begins at ``at`` ends, if it takes up its lines; None if it is none."""
    try:
        value, end = _decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    line_ends = text.find("\n", end)
    alone = not text[end : line_ends if line_ends >= 0 else len(text)].strip()
    return end if alone and isinstance(value, dict | list) else None


def minified(value: str) -> str:
    """A JSON value on one line; its numbers, strings and names stay as they are written."""
    return _TOKENS.sub(lambda token: "" if token.group()[0] != '"' else token.group(), value)
