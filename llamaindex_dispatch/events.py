"""What instrumentation sees of the dispatcher. A hit emits no event of a model's: it is no call and costs nothing."""

from __future__ import annotations

from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher

from dispatch_core.ports import Reservation
from dispatch_core.types import Match, Miss

BYPASSED = "bypassed"

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


class DispatchCacheMissEvent(BaseEvent):
    """The model is asked, for no stored answer will do; its own events follow.

    ``reason`` says why: what the policy or a guard found, or ``"bypassed"`` for a call that went past the cache.
    ``similarity`` is the cosine in [−1, 1] of the nearest stored question that was refused; None if none was near.
    """

    reason: str
    similarity: float | None = None

    @classmethod
    def class_name(cls) -> str:
        return "DispatchCacheMissEvent"


class DispatchRateLimitWaitEvent(BaseEvent):
    """A call had to wait for its turn, and is sent now.

    ``waited`` is in seconds; ``input_tokens`` and ``output_tokens`` are what was reserved for it, ``model`` the name
    under which its tokens are estimated.
    """

    waited: float
    input_tokens: int
    output_tokens: int
    model: str = ""

    @classmethod
    def class_name(cls) -> str:
        return "DispatchRateLimitWaitEvent"


def announce(match: Match) -> None:
    _instrument.event(DispatchCacheHitEvent(**match.note()))


def announce_miss(miss: Miss | None) -> None:
    """None for a call that went past the cache."""
    if miss is None:
        _instrument.event(DispatchCacheMissEvent(reason=BYPASSED))
        return
    nearest = miss.nearest
    similarity = None if nearest is None else round(nearest.score, 4)
    _instrument.event(DispatchCacheMissEvent(reason=miss.reason, similarity=similarity))


def announce_wait(reservation: Reservation | None) -> None:
    """Nothing, if it was admitted at once."""
    waited = getattr(reservation, "waited", 0.0)
    if reservation is None or not waited > 0:
        return
    cost = reservation.cost
    event = DispatchRateLimitWaitEvent(
        waited=waited, input_tokens=cost.input_tokens, output_tokens=cost.output_tokens, model=cost.model
    )
    _instrument.event(event)
