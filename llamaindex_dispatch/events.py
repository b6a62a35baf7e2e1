"""What instrumentation sees of a hit: one event of its own, for a hit is no model call and costs nothing."""

from __future__ import annotations

from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

from dispatch_core.types import Match

_instrument = get_dispatcher(__name__)


class DispatchCacheHitEvent(BaseEvent):
    """An answer came from the cache.

    ``cache_hit`` is ``"exact"``, ``"semantic"`` or ``"flight"`` (asked while another's answer was under way),
    ``similarity`` the cosine in [−1, 1], ``saved_usage`` the tokens that the answer had cost: ``input_tokens`` and
    ``output_tokens``; ``hit_id`` names the hit, to be taken back by ``llm.dispatcher.reject(hit_id)``.
    """

    cache_hit: str
    similarity: float
    saved_usage: dict[str, int]
    hit_id: str = ""

    @classmethod
    def class_name(cls) -> str:
        return "DispatchCacheHitEvent"


def announce(match: Match) -> None:
    _instrument.event(DispatchCacheHitEvent(**match.note()))
