"""AI Dispatcher: a semantic cache and a token-aware limiter between an LLM application and its models."""

from dispatch_core.alike import AnswersAlike
from dispatch_core.bounded import Bound, ErrorBounded
from dispatch_core.cache import SemanticCache
from dispatch_core.consensus import Consensus
from dispatch_core.curve import Curve
from dispatch_core.dispatcher import Dispatcher, Ticket
from dispatch_core.eligible import Eligibility, Rule
from dispatch_core.embed import HashingEmbedder, MemoEmbedder, SentenceTransformerEmbedder
from dispatch_core.errors import (
    ConfigError,
    DimensionMismatch,
    DispatchError,
    EmbeddingError,
    LimitError,
    LimitExceeded,
    MissingExtra,
    RequestTooLarge,
    StoreError,
)
from dispatch_core.explain import Explanation
from dispatch_core.lifetime import Lifetime
from dispatch_core.limit import (
    GaugeStats,
    LimiterStats,
    Profile,
    Refusal,
    TokenEstimator,
    TokenLimiter,
    Verdict,
    tiktoken_counter,
)
from dispatch_core.policy import Graded, Guarded, Learning, Policy, Threshold
from dispatch_core.ports import Embedder, LeasingStore, Limiter, Reservation, VectorStore
from dispatch_core.stores import ChromaStore, MemoryStore, MilvusStore, RedisNearStore, SQLiteStore, store_from_url
from dispatch_core.telemetry import Prices, Stats
from dispatch_core.types import Cost, Decision, Entry, Feedback, Fit, Match, Miss, Query, Usage

__all__ = [
    "AnswersAlike",
    "Bound",
    "ChromaStore",
    "ConfigError",
    "Consensus",
    "Cost",
    "Curve",
    "Decision",
    "DimensionMismatch",
    "DispatchError",
    "Dispatcher",
    "Eligibility",
    "Embedder",
    "EmbeddingError",
    "Entry",
    "ErrorBounded",
    "Explanation",
    "Feedback",
    "Fit",
    "GaugeStats",
    "Graded",
    "Guarded",
    "HashingEmbedder",
    "Learning",
    "LeasingStore",
    "Lifetime",
    "LimitError",
    "LimitExceeded",
    "Limiter",
    "LimiterStats",
    "Match",
    "MemoEmbedder",
    "MemoryStore",
    "MilvusStore",
    "Miss",
    "MissingExtra",
    "Policy",
    "Prices",
    "Profile",
    "Query",
    "RedisNearStore",
    "Refusal",
    "RequestTooLarge",
    "Reservation",
    "Rule",
    "SQLiteStore",
    "SemanticCache",
    "SentenceTransformerEmbedder",
    "Stats",
    "StoreError",
    "Threshold",
    "Ticket",
    "TokenEstimator",
    "TokenLimiter",
    "Usage",
    "VectorStore",
    "Verdict",
    "store_from_url",
    "tiktoken_counter",
]
