"""Token-aware limits: admit calls so that a provider's quota is used and never exceeded."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.limit.count import TokenEstimator
    from dispatch_core.limit.feedback import feedback_of
    from dispatch_core.limit.given import limiter_of
    from dispatch_core.limit.limiter import GaugeStats, LimiterStats, TokenLimiter
    from dispatch_core.limit.profile import PROFILES, Profile
    from dispatch_core.limit.retry import RetryPolicy
    from dispatch_core.limit.tokenizer import tiktoken_counter
    from dispatch_core.limit.verdict import Refusal, Verdict
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "GaugeStats": "limiter",
            "LimiterStats": "limiter",
            "PROFILES": "profile",
            "Profile": "profile",
            "Refusal": "verdict",
            "RetryPolicy": "retry",
            "TokenEstimator": "count",
            "TokenLimiter": "limiter",
            "Verdict": "verdict",
            "feedback_of": "feedback",
            "limiter_of": "given",
            "tiktoken_counter": "tokenizer",
        },
    )

__all__ = [
    "PROFILES",
    "GaugeStats",
    "LimiterStats",
    "Profile",
    "Refusal",
    "RetryPolicy",
    "TokenEstimator",
    "TokenLimiter",
    "Verdict",
    "feedback_of",
    "limiter_of",
    "tiktoken_counter",
]
