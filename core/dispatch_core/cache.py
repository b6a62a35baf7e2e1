"""The semantic cache: exact tier, nearest neighbours, decision. One embedding per miss, none per exact hit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from dispatch_core import keys
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.bounded import CHECKING
from dispatch_core.consensus import Consensus
from dispatch_core.eligible import MAX_CHARS, Eligibility, why_unreadable
from dispatch_core.equivalence import same_entry
from dispatch_core.errors import ConfigError, EmbeddingError
from dispatch_core.explain import Explanation, neighbours_of
from dispatch_core.lifetime import Lifetime
from dispatch_core.policy import Graded, Learning, Policy, Reading
from dispatch_core.ports import Embedder, VectorStore
from dispatch_core.recent import RecentHits
from dispatch_core.settings import (
    checked_eligibility,
    checked_lifetime,
    checked_policy,
    checked_sources,
    checked_tags,
    wanted_tags,
)
from dispatch_core.types import Decision, Entry, Match, Matrix, Miss, Query, Usage, Vector

UNSEEN = "unseen"
"""Reason of a `Miss` for which nothing was looked up yet."""

SHADOW = "shadow"
"""Reason of a `Miss` that would have been a hit, had the cache been told to serve."""

EXACT = "exact"
"""Reason and path of a hit on the same words."""

STALE = "stale"
"""Reason of a `Miss` of one who asks the model anew while others are served the old answer."""

REJECTED = "rejected"
"""Reason of a `Miss` whose nearest neighbour is a question of which a hit was taken back."""

_NO_ENCODER = "exact"
_TIE = 1e-6
"""Cosines so near are equal: an encoder that ignores case sees one text, a store rounds."""

_Parts: TypeAlias = tuple[str, str, str, bool, tuple[str, ...], tuple[tuple[str, str], ...]]
"""A query, which is compared faster in its parts."""

Asked: TypeAlias = tuple[Miss, str | None]
"""A question that nothing is known of yet, and why it goes past the cache; None if it does not."""

_UNEMBEDDED = (UNSEEN, SHADOW, STALE)
_UNDER_WAY = 0.001
"""Seconds after which an embedding has left the interpreter to its thread: it computes, and others may run."""

T = TypeVar("T")


class SemanticCache:
    """Answers of questions that mean the same, within one namespace and one scope.

    Without an ``embedder`` only exact matches are found. ``policy`` decides which neighbour is the same question
    (`Consensus` by default), ``eligibility`` which questions are compared at all, ``ttl`` how long an answer lives: a
    `Lifetime`, or seconds. ``tags`` and ``sources`` (names and versions of what answers rest on) are added to those
    of each query: forget all answers that carry a tag by ``clear(tags=["prices"])``, none of an older version is
    found after ``cache.sources["handbook"] = "2026-11"``. With ``shadow`` everything is decided and compared with the
    answers that come, and nothing is served. ``namespace_secret`` (at most 64 bytes) keys the digests of namespaces.
    ``clock`` returns Unix seconds.
    """

    def __init__(
        self,
        embedder: Embedder | None,
        store: VectorStore,
        *,
        policy: Policy | None = None,
        eligibility: Eligibility | None = None,
        ttl: Lifetime | float | None = None,
        tags: Collection[str] = (),
        sources: Mapping[str, str] | None = None,
        shadow: bool = False,
        namespace_secret: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if len(namespace_secret) > 64:
            raise ConfigError(f"namespace_secret is at most 64 bytes, got {len(namespace_secret)}")
        self.embedder = embedder
        self.stored_in = store
        self.policy = checked_policy(policy if policy is not None else Consensus())
        self.eligibility = checked_eligibility(eligibility if eligibility is not None else Eligibility())
        self.lifetime = checked_lifetime(ttl)
        self.sources = dict(checked_sources(sources or {}))
        self.shadow = shadow
        self._tags = checked_tags(tags)
        self._secret = namespace_secret
        self._clock = clock
        self._hits = RecentHits()

    def lookup(self, query: Query) -> Match | Miss:
        """Find an answer to serve, or a `Miss` to store the answer with. Raises `StoreError`, `EmbeddingError`."""
        found = self.at_once(query)
        return found if found is not None else run(self._lookup(query))

    async def alookup(self, query: Query) -> Match | Miss:
        found = self.at_once(query)
        return found if found is not None else await arun(self._lookup(query))

    def store(self, miss: Miss, payload: bytes, usage: Usage | None = None) -> Entry:
        """Keep a complete answer, unless its question goes past the cache. Raises `StoreError`, `EmbeddingError`."""
        return run(self._store(miss, payload, usage))

    async def astore(self, miss: Miss, payload: bytes, usage: Usage | None = None) -> Entry:
        return await arun(self._store(miss, payload, usage))

    def explain(self, question: Query | str) -> Explanation:
        """What a lookup would come to, and why. Changes nothing, serves nothing."""
        return run(self._explain(question))

    async def aexplain(self, question: Query | str) -> Explanation:
        return await arun(self._explain(question))

    def reject(self, hit_id: str) -> bool:
        """A hit was wrong: its question is asked anew, and so are those nearer to it than to anything else.

        A tombstone takes the place of an entry for that question, until the next answer to it. False if the hit is
        not among the last few thousand of this process.
        """
        return run(self._reject(hit_id))

    async def areject(self, hit_id: str) -> bool:
        return await arun(self._reject(hit_id))

    def clear(self, namespace: str | None = None, *, tags: Collection[str] | None = None) -> int:
        """Forget the entries of one namespace, or of all; with ``tags``, those that carry any of them. How many?"""
        return self.stored_in.clear(self._digest(namespace), **wanted_tags(tags))

    async def aclear(self, namespace: str | None = None, *, tags: Collection[str] | None = None) -> int:
        return await self.stored_in.aclear(self._digest(namespace), **wanted_tags(tags))

    def close(self) -> None:
        self.stored_in.close()

    async def aclose(self) -> None:
        await self.stored_in.aclose()

    def fresh(self, entry: Entry) -> bool:
        """Is the entry to be served by this cache's clock?"""
        return entry.fresh(self._clock()) and not entry.tombstone

    def stale(self, entry: Entry) -> bool:
        """Is it time that somebody asks the model anew?"""
        return entry.stale is not None and entry.stale <= self._clock()

    def why_not_at_all(self, query: Query) -> str | None:
        """Why the question goes past the cache, both ways; None if it does not."""
        return self.eligibility.why_not_at_all(query)

    def unseen(self, query: Query) -> Miss:
        """A miss without a lookup: to store an answer when the lookup failed or was skipped. Raises `ConfigError` for
        tags and sources that are none."""
        return self.read(query)[0]

    def read(self, query: Query) -> Asked:
        """The question as one that nothing is known of, and why it goes past the cache, if it does. Raises
        `ConfigError` for tags and sources that are none."""
        text, tags, its = query.text, query.tags, query.sources
        embedder = self.embedder
        model = _NO_ENCODER if embedder is None else embedder.model
        sources = tuple(self.sources.items()) if self.sources else ()
        rules = self.eligibility
        if len(text) <= MAX_CHARS and type(tags) is tuple and type(its) is tuple and type(rules) is Eligibility:
            parts = text, query.scope, query.namespace, query.semantic, tags, its
            return _remembered(parts, self._secret, model, sources, rules)
        return _unseen(query, self._secret, model, sources), self.why_not_at_all(query)

    def at_once(self, query: Query) -> Match | None:
        """The hit that `lookup` would come to, if it is on the same words, in a store that has it at hand, and there
        is nothing else to see to; None if that takes a lookup to find out. Takes microseconds, in both forms."""
        return self.found_at_once(self.read(query)) if self._at_hand else None

    def found_at_once(self, read: Asked) -> Match | None:
        """The same for a question that was read."""
        (unseen, bypass), now = read, self._clock()
        if bypass or self.shadow or self.lifetime.max_age is not None or not self._at_hand:
            return None
        entry = self.stored_in.get(unseen.id, now=now)
        if entry is None or entry.tombstone or (entry.stale is not None and entry.stale <= now):
            return None
        return Match(entry, 1.0, True, self._hits.remember(unseen))

    def lookup_flow(self, unseen: Miss) -> Flow[Match | Miss]:
        """Of a question that does not go past the cache."""
        decision, vector, _ = yield from self._decided(unseen)
        if decision.hit is None:
            # A third of the time of `replace`.
            return Miss(unseen.query, unseen.id, unseen.scope, decision.reason, vector, decision)
        if self.shadow:
            return replace(unseen, reason=SHADOW, vector=vector, decision=replace(decision, hit=None, reason=SHADOW))
        return self.retractable(decision.hit, unseen if vector is None else replace(unseen, vector=vector))

    def retractable(self, match: Match, asked: Miss) -> Match:
        """A match that is served, with the id by which `reject` takes it back."""
        hit_id = self._hits.remember(asked)
        # Half the time of `replace`, which keeps what is more than a match.
        plain = type(match) is Match
        return Match(match.entry, match.score, match.exact, hit_id) if plain else replace(match, hit_id=hit_id)

    def entry(self, miss: Miss, payload: bytes, usage: Usage | None) -> Entry:
        """What is to be stored for a miss, as of now."""
        now = self._clock()
        stale, expires = self.lifetime.ends(miss.id, now)
        return Entry(
            id=miss.id,
            namespace=keys.namespace_digest(miss.query.namespace, self._secret),
            scope=miss.scope,
            text=miss.query.text,
            payload=payload,
            usage=usage or Usage(),
            created=now,
            expires=expires,
            stale=stale,
            tags=tuple(sorted({*self._tags, *miss.query.tags})),
        )

    def store_flow(self, miss: Miss, entry: Entry) -> Flow[Entry]:
        if self.why_not_at_all(miss.query) is not None:
            return entry
        vector = miss.vector
        if vector is None and miss.reason in _UNEMBEDDED:
            vector, _ = yield from self._vector(miss.query)
        if self._at_hand:
            self.stored_in.put(entry, vector)
        else:
            yield from step(self.stored_in.put, self.stored_in.aput, entry, vector)
        return entry

    def learn_flow(self, miss: Miss, answer: Entry) -> Flow[bool | None]:
        """Let the policy learn from an answer. Of a hit that was not served but asked all the same: was it right?"""
        decision = miss.decision
        if miss.vector is not None and isinstance(self.policy, Reading):
            yield from self._thought(self.policy.read, answer.text)
        if decision is None or decision.candidate is None:
            return None
        if decision.path != EXACT and isinstance(self.policy, Learning):
            yield from self._thought(self.policy.learn, decision, answer)
        if decision.reason not in (SHADOW, CHECKING):
            return None
        same = self.policy.same if isinstance(self.policy, Graded) else same_entry
        return (yield from self._thought(same, decision.candidate.entry, answer))

    def replace_flow(self, stale: Match, answer: Entry) -> Flow[None]:
        """Forget a stale answer to other words, if the new one is found for them instead."""
        if stale.entry.id == answer.id:
            return
        instead = [Match(answer, stale.score)]
        decision = yield from self._thought(self.policy.decide, stale.entry.text, instead)
        if decision.candidate is not None:
            yield from step(self.stored_in.delete, self.stored_in.adelete, stale.entry.id)

    def _lookup(self, query: Query) -> Flow[Match | Miss]:
        unseen = self.unseen(query)
        reason = self.why_not_at_all(query)
        if reason is not None:
            return replace(unseen, reason=reason)
        found = yield from self.lookup_flow(unseen)
        if isinstance(found, Match):
            yield from self.prolong_flow(found.entry)
        return found

    def _store(self, miss: Miss, payload: bytes, usage: Usage | None) -> Flow[Entry]:
        entry = yield from self.store_flow(miss, self.entry(miss, payload, usage))
        yield from self.learn_flow(miss, entry)
        return entry

    def _decided(self, unseen: Miss) -> Flow[tuple[Decision, Vector | None, list[Match]]]:
        """The decision, the text's embedding if it was needed, and the neighbours."""
        now = self._clock()
        if self._at_hand:
            entry = self.stored_in.get(unseen.id, now=now)
        else:
            entry = yield from step(self.stored_in.get, self.stored_in.aget, unseen.id, now=now)
        if entry is not None and not entry.tombstone:
            match = Match(entry, 1.0, exact=True)
            return Decision(match, EXACT, match, match, 1.0, EXACT), None, []
        vector, reason = yield from self._vector(unseen.query)
        if vector is None:
            return Decision(None, reason), None, []
        search, asearch = self.stored_in.search, self.stored_in.asearch
        # One more than the policy looks at: of two that are equally near, the store may name the tombstone last.
        limit = self.policy.neighbours + 1
        found = yield from step(search, asearch, vector, scope=unseen.scope, limit=limit, now=now)
        if entry is not None:
            return Decision(None, REJECTED, Match(entry, 1.0, exact=True)), vector, list(found)
        living = _living(found)[: self.policy.neighbours]
        decision = yield from self._thought(self.policy.decide, unseen.query.text, living)
        if not living and found:
            decision = replace(decision, reason=REJECTED, nearest=found[0])
        return decision, vector, list(found)

    def _thought(self, call: Callable[..., T], *args: Any) -> Flow[T]:
        """Policies are pure; one that must embed answers to compare them does so off the event loop."""

        async def called(*args: Any) -> T:
            return call(*args)

        slow = getattr(getattr(self.policy, "same", None), "slow", False)
        return (yield from step(call, partial(asyncio.to_thread, call) if slow else called, *args))

    def _vector(self, query: Query) -> Flow[tuple[Vector | None, str]]:
        """The text's embedding, or None and the reason why it is matched exactly."""
        reason = self.eligibility.why_exact_only(query)
        embedder = self.embedder
        if reason is not None or embedder is None:
            return None, reason or "no-embedder"
        fit = yield from step(embedder.fit, embedder.afit, query.text)
        reason = why_unreadable(fit, embedder.max_tokens)
        if reason is not None:
            return None, reason
        vectors = yield from step(embedder.embed, partial(self._embedded, embedder), [query.text])
        if vectors.shape != (1, embedder.dims) or not np.isfinite(vectors).all():
            # Stored, it would match everything or nothing for as long as it lives.
            raise EmbeddingError(f"{embedder.model} returned an unusable vector of shape {vectors.shape}")
        return vectors[0], ""

    async def _embedded(self, embedder: Embedder, texts: Sequence[str]) -> Matrix:
        """While a text is embedded, the policy reads it: nobody waits for that later."""

        def read() -> None:
            if isinstance(self.policy, Reading):
                # Who needs it reads it again, and what fails there is counted, logged, and perhaps raised.
                with suppress(Exception):
                    for text in texts:
                        self.policy.read(text)

        reading = asyncio.get_running_loop().call_later(_UNDER_WAY, read)
        try:
            return await embedder.aembed(texts)
        finally:
            reading.cancel()

    def prolong_flow(self, entry: Entry) -> Flow[None]:
        """Let a hit live on, if its lifetime says so."""
        now = self._clock()
        until = self.lifetime.prolonged(entry, now)
        if until is not None:
            yield from step(self.stored_in.touch, self.stored_in.atouch, entry.id, expires=until, now=now)

    def _explain(self, question: Query | str) -> Flow[Explanation]:
        query = Query(question) if isinstance(question, str) else question
        reason = self.why_not_at_all(query)
        if reason is not None:
            return Explanation(query.text, False, reason)
        decision, _, found = yield from self._decided(self.unseen(query))
        neighbours = yield from self._thought(neighbours_of, query.text, found, self.policy)
        return Explanation(query.text, decision.hit is not None, decision.reason, decision, neighbours)

    def _reject(self, hit_id: str) -> Flow[bool]:
        miss = self._hits.asked(hit_id)
        if miss is None:
            return False
        vector = miss.vector
        if vector is None:
            vector, _ = yield from self._vector(miss.query)
        entry = self.entry(miss, b"", None)
        # It must not end before the answer that it forbids.
        tombstone = replace(entry, tombstone=True, stale=None, expires=self.lifetime.longest(entry.created))
        yield from step(self.stored_in.put, self.stored_in.aput, tombstone, vector)
        # Not before: who failed to take it back may try again.
        return self._hits.forget(hit_id)

    @property
    def _at_hand(self) -> bool:
        """What the store does takes microseconds: less than a step of a flow."""
        return getattr(self.stored_in, "at_hand", False)

    def _digest(self, namespace: str | None) -> str | None:
        return None if namespace is None else keys.namespace_digest(namespace, self._secret)


def _unseen(query: Query, secret: bytes, model: str, sources: tuple[tuple[str, str], ...]) -> Miss:
    checked_tags(query.tags)
    if sources or query.sources:
        sources = checked_sources({**dict(sources), **dict(query.sources)})
    scope = keys.scope_of(query.namespace, secret, query.scope, model, sources)
    return Miss(query, keys.entry_id(scope, query.text), scope, UNSEEN)


@lru_cache(maxsize=4096)
def _remembered(
    asked: _Parts, secret: bytes, model: str, sources: tuple[tuple[str, str], ...], eligibility: Eligibility
) -> tuple[Miss, str | None]:
    """What is asked is often asked again. Of long texts the memory would be full, and lists cannot be remembered."""
    query = Query(*asked)
    return _unseen(query, secret, model, sources), eligibility.why_not_at_all(query)


def _living(found: Sequence[Match]) -> list[Match]:
    """The candidates nearer than any tombstone: what is no nearer than a rejected question is no better."""
    cut = max((match.score for match in found if match.entry.tombstone), default=-math.inf)
    return [match for match in found if match.score > cut + _TIE]
