"""The semantic cache: exact tier, nearest neighbour, decision. One embedding per miss, none per exact hit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from dispatch_core import keys
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.consensus import Consensus
from dispatch_core.eligible import why_exact_only, why_unreadable
from dispatch_core.errors import ConfigError, EmbeddingError
from dispatch_core.policy import Policy
from dispatch_core.ports import Embedder, VectorStore
from dispatch_core.types import Entry, Match, Miss, Query, Usage, Vector

UNSEEN = "unseen"
"""Reason of a `Miss` for which nothing was looked up yet."""

_NO_ENCODER = "exact"


class SemanticCache:
    """Answers of questions that mean the same, within one namespace and one scope.

    Without an ``embedder`` only exact matches are found. ``ttl`` is in seconds, absolute from the moment of storing;
    reading an entry never extends its life. ``namespace_secret`` (at most 64 bytes) keys the digests of namespaces.
    ``clock`` returns Unix seconds.
    """

    def __init__(
        self,
        embedder: Embedder | None,
        store: VectorStore,
        *,
        policy: Policy | None = None,
        ttl: float | None = None,
        namespace_secret: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if ttl is not None and not (0 < ttl < math.inf):
            raise ConfigError(f"ttl is a positive number of seconds or None, got {ttl}")
        if len(namespace_secret) > 64:
            raise ConfigError(f"namespace_secret is at most 64 bytes, got {len(namespace_secret)}")
        self.embedder = embedder
        self.stored_in = store
        self.policy = policy or Consensus()
        self._ttl = ttl
        self._secret = namespace_secret
        self._clock = clock

    def lookup(self, query: Query) -> Match | Miss:
        """Find an answer to serve, or a `Miss` to store the answer with. Raises `StoreError`, `EmbeddingError`."""
        return run(self.lookup_flow(query))

    async def alookup(self, query: Query) -> Match | Miss:
        return await arun(self.lookup_flow(query))

    def store(self, miss: Miss, payload: bytes, usage: Usage | None = None) -> Entry:
        """Keep a complete answer. Raises `StoreError`, `EmbeddingError`."""
        return run(self.store_flow(miss, self.entry(miss, payload, usage)))

    async def astore(self, miss: Miss, payload: bytes, usage: Usage | None = None) -> Entry:
        return await arun(self.store_flow(miss, self.entry(miss, payload, usage)))

    def clear(self, namespace: str | None = None) -> None:
        """Forget the entries of one namespace, or of all."""
        self.stored_in.clear(self._digest(namespace))

    async def aclear(self, namespace: str | None = None) -> None:
        await self.stored_in.aclear(self._digest(namespace))

    def close(self) -> None:
        self.stored_in.close()

    async def aclose(self) -> None:
        await self.stored_in.aclose()

    def fresh(self, entry: Entry) -> bool:
        """Is the entry to be served by this cache's clock?"""
        return entry.fresh(self._clock())

    def unseen(self, query: Query) -> Miss:
        """A miss without a lookup: to store an answer when the lookup failed or was skipped."""
        model = self.embedder.model if self.embedder else _NO_ENCODER
        scope = keys.full_scope(keys.namespace_digest(query.namespace, self._secret), query.scope, model)
        return Miss(query, keys.entry_id(scope, query.text), scope, UNSEEN)

    def lookup_flow(self, query: Query) -> Flow[Match | Miss]:
        now = self._clock()
        miss = self.unseen(query)
        entry = yield from step(self.stored_in.get, self.stored_in.aget, miss.id, now=now)
        if entry is not None:
            return Match(entry, 1.0, exact=True)
        vector, reason = yield from self._vector(query)
        if vector is None:
            return Miss(query, miss.id, miss.scope, reason)
        found = yield from step(
            self.stored_in.search,
            self.stored_in.asearch,
            vector,
            scope=miss.scope,
            limit=self.policy.neighbours,
            now=now,
        )
        decision = self.policy.decide(query.text, found)
        if decision.hit is not None:
            return decision.hit
        return Miss(query, miss.id, miss.scope, decision.reason, vector, decision.nearest)

    def entry(self, miss: Miss, payload: bytes, usage: Usage | None) -> Entry:
        """What is to be stored for a miss, as of now."""
        now = self._clock()
        return Entry(
            id=miss.id,
            namespace=keys.namespace_digest(miss.query.namespace, self._secret),
            scope=miss.scope,
            text=miss.query.text,
            payload=payload,
            usage=usage or Usage(),
            created=now,
            expires=None if self._ttl is None else now + self._ttl,
        )

    def store_flow(self, miss: Miss, entry: Entry) -> Flow[Entry]:
        vector = miss.vector
        if miss.reason == UNSEEN:
            vector, _ = yield from self._vector(miss.query)
        yield from step(self.stored_in.put, self.stored_in.aput, entry, vector)
        return entry

    def _vector(self, query: Query) -> Flow[tuple[Vector | None, str]]:
        """The text's embedding, or None and the reason why it is matched exactly."""
        reason = why_exact_only(query)
        embedder = self.embedder
        if reason is not None or embedder is None:
            return None, reason or "no-embedder"
        fit = yield from step(embedder.fit, embedder.afit, query.text)
        reason = why_unreadable(fit, embedder.max_tokens)
        if reason is not None:
            return None, reason
        vectors = yield from step(embedder.embed, embedder.aembed, [query.text])
        if vectors.shape != (1, embedder.dims) or not np.isfinite(vectors).all():
            # Stored, it would match everything or nothing for as long as it lives.
            raise EmbeddingError(f"{embedder.model} returned an unusable vector of shape {vectors.shape}")
        return vectors[0], ""

    def _digest(self, namespace: str | None) -> str | None:
        return None if namespace is None else keys.namespace_digest(namespace, self._secret)
