"""Token-aware limits: admit calls so that a provider's quota is used and never exceeded."""

from dispatch_core.limit.feedback import feedback_of
from dispatch_core.limit.given import limiter_of
from dispatch_core.limit.local import LimiterStats, TokenLimiter

__all__ = ["LimiterStats", "TokenLimiter", "feedback_of", "limiter_of"]
