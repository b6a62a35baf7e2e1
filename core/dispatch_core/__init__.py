"""AI Dispatcher: a semantic cache and a token-aware limiter between an LLM application and its models."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.alike import AnswersAlike
    from dispatch_core.bounded import Bound, ErrorBounded
    from dispatch_core.cache import SemanticCache
    from dispatch_core.consensus import Consensus
    from dispatch_core.curve import Curve
    from dispatch_core.dispatcher import Dispatcher, Ticket
    from dispatch_core.eligible import Eligibility, Rule
    from dispatch_core.embed import (
        HashingEmbedder,
        MemoEmbedder,
        OnnxEmbedder,
        SentenceTransformerEmbedder,
        default_embedder,
    )
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
    from dispatch_core.stores import MemoryStore, RedisNearStore, SQLiteStore, store_from_url
    from dispatch_core.telemetry import Prices, Stats
    from dispatch_core.types import Cost, Decision, Entry, Feedback, Fit, Match, Miss, Query, Usage
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "AnswersAlike": "alike",
            "Bound": "bounded",
            "ConfigError": "errors",
            "Consensus": "consensus",
            "Cost": "types",
            "Curve": "curve",
            "Decision": "types",
            "DimensionMismatch": "errors",
            "DispatchError": "errors",
            "Dispatcher": "dispatcher",
            "Eligibility": "eligible",
            "Embedder": "ports",
            "EmbeddingError": "errors",
            "Entry": "types",
            "ErrorBounded": "bounded",
            "Explanation": "explain",
            "Feedback": "types",
            "Fit": "types",
            "GaugeStats": "limit.limiter",
            "Graded": "policy",
            "Guarded": "policy",
            "HashingEmbedder": "embed.hashing",
            "Learning": "policy",
            "LeasingStore": "ports",
            "Lifetime": "lifetime",
            "LimitError": "errors",
            "LimitExceeded": "errors",
            "Limiter": "ports",
            "LimiterStats": "limit.limiter",
            "Match": "types",
            "MemoEmbedder": "embed.memo",
            "MemoryStore": "stores.memory",
            "Miss": "types",
            "MissingExtra": "errors",
            "OnnxEmbedder": "embed.onnx",
            "Policy": "policy",
            "Prices": "telemetry",
            "Profile": "limit.profile",
            "Query": "types",
            "RedisNearStore": "stores.redisnear",
            "Refusal": "limit.verdict",
            "RequestTooLarge": "errors",
            "Reservation": "ports",
            "Rule": "eligible",
            "SQLiteStore": "stores.sqlite",
            "SemanticCache": "cache",
            "SentenceTransformerEmbedder": "embed.sentence",
            "Stats": "telemetry",
            "StoreError": "errors",
            "Threshold": "policy",
            "Ticket": "dispatcher",
            "TokenEstimator": "limit.count",
            "TokenLimiter": "limit.limiter",
            "Usage": "types",
            "VectorStore": "ports",
            "Verdict": "limit.verdict",
            "default_embedder": "embed.default",
            "store_from_url": "stores.urls",
            "tiktoken_counter": "limit.tokenizer",
        },
    )

__all__ = [
    "AnswersAlike",
    "Bound",
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
    "Miss",
    "MissingExtra",
    "OnnxEmbedder",
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
    "default_embedder",
    "store_from_url",
    "tiktoken_counter",
]
