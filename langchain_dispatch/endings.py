"""Why an answer ended, as providers say it in its metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
_UNFINISHED = frozenset(
    {
        *("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
        *("content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "prohibited_content"),
        *("incomplete", "failed", "cancelled", "error", "pause_turn", "malformed_function_call"),
    }
)


def unfinished(metadata: Mapping[str, Any]) -> bool:
    """The answer was cut off or withheld; it must not be replayed."""
    return any(ending.lower() in _UNFINISHED for ending in _endings(metadata))


def broken_off(metadata: Mapping[str, Any]) -> bool:
    """A stream of a provider that says why it ended, which did not: even if no error was seen."""
    return "model_provider" in metadata and not any(_endings(metadata))


def _endings(metadata: Mapping[str, Any]) -> Iterator[str]:
    return (reason for name in _NAMES if isinstance(reason := metadata.get(name), str))
