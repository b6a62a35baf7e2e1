"""What instrumentation sees of a hit: one event of its own, for a hit is no model call and costs nothing."""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

from dispatch_core.types import Match

_instrument = get_dispatcher(__name__)


class DispatchCacheHitEvent(BaseEvent):
    """An answer came from the cache.

    ``cache_hit`` is ``"exact"``, ``"semantic"`` or ``"flight"`` (asked while another's answer was under way),
    ``similarity`` the cosine in [−1, 1], ``saved_usage`` the tokens that the answer had cost: ``input_tokens`` and
    ``output_tokens``.
    """

    cache_hit: str
    similarity: float
    saved_usage: dict[str, int]

    @classmethod
    def class_name(cls) -> str:
        return "DispatchCacheHitEvent"


def note(match: Match) -> dict[str, Any]:
    """What a replayed response says about itself under ``additional_kwargs["dispatch"]``.

    No name of it is one that token counters look for: they would book the hit as spending.
    """
    usage = match.entry.usage
    return {
        "cache_hit": match.kind,
        "similarity": round(match.score, 4),
        "saved_usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
    }


def announce(match: Match) -> None:
    _instrument.event(DispatchCacheHitEvent(**note(match)))
