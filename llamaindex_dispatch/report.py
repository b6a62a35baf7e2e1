"""What a response reports about itself, read by shape: an integration keeps its provider's own object in ``raw``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from dispatch_core.types import Usage

Response: TypeAlias = ChatResponse | CompletionResponse

TOKEN_COUNTS = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
    ("prompt_token_count", "candidates_token_count"),
    ("prompt_eval_count", "eval_count"),
)
"""The names under which providers report the tokens of the prompt and of the answer."""

_UNFINISHED = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
        *("content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "prohibited_content"),
        *("incomplete", "failed", "cancelled", "error", "pause_turn", "malformed_function_call"),
    }
)


def usage_of(response: Response) -> Usage | None:
    """The tokens that the provider counted, or None if it did not say."""
    raw = response.raw
    for source in (_get(raw, "usage"), _get(raw, "usage_metadata"), response.additional_kwargs, raw):
        for input_name, output_name in TOKEN_COUNTS:
            counts = [_get(source, name) for name in (input_name, output_name)]
            tokens = [count if isinstance(count, int) else 0 for count in counts]
            if any(tokens):
                return Usage(*tokens)
    return None


def ending_of(response: Response) -> str | None:
    """Why the model stopped, in lower case; None if the response does not say, as all chunks but the last."""
    for value in _endings(response.raw):
        text = value.name if isinstance(value, Enum) else value
        if isinstance(text, str) and text:
            return text.lower()
    return None


def unfinished(ending: str | None) -> bool:
    """The answer was cut off or withheld; it must not be replayed."""
    return ending in _UNFINISHED


def speaks_of_endings(response: Response) -> bool:
    """This provider's streams close with a reason; one without has broken off, even if no error was seen."""
    return _get(response.raw, "choices") is not None


def _endings(raw: Any) -> Iterator[Any]:
    for several in ("choices", "candidates"):
        listed = _get(raw, several)
        if isinstance(listed, list) and listed:
            yield _get(listed[0], "finish_reason")
    for name in ("finish_reason", "stop_reason", "done_reason", "status"):
        yield _get(raw, name)


def _get(source: Any, name: str) -> Any:
    if isinstance(source, Mapping):
        return source.get(name)
    return getattr(source, name, None)
