"""One cache with its dispatchers: what a caller asks for (a higher threshold, a shorter life) is a variant of it."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict

from dispatch_core import Consensus, Dispatcher, Lifetime, SemanticCache
from dispatch_core.circumstances import circumstances
from dispatch_core.embed import BatchingEmbedder, SentenceTransformerEmbedder, default_embedder
from dispatch_core.errors import ConfigError, EmbeddingError, MissingExtra
from dispatch_core.ports import Embedder, Limiter, VectorStore
from dispatch_core.stores import MemoryStore, store_from_url
from dispatch_gateway import config

_FIRST_WORDS = "Are you ready now?"
_STEP = 0.01
_KEPT = 64

log = logging.getLogger("dispatch_gateway")


class Caches:
    """Dispatchers over one store, one embedder and one limiter.

    Questions of different variants find each other's entries, and do not wait for each other's calls. Thresholds are
    rounded up to hundredths and lives down to two digits, so that few variants serve all.
    """

    def __init__(
        self, settings: config.Cache, limiter: Limiter, *, embedder: Embedder | None, store: VectorStore | None
    ) -> None:
        self.settings = settings
        self.store = store
        self.embedder = embedder
        self._limiter = limiter
        self._variants: OrderedDict[tuple[float, float | None], Dispatcher] = OrderedDict()
        self.plain = self._made(settings.threshold, settings.ttl)

    @classmethod
    def of(cls, settings: config.Cache, limiter: Limiter, embedder: Embedder | None) -> Caches:
        """Raises `ConfigError` and `MissingExtra`; no server is contacted yet."""
        if not settings.enabled:
            return cls(settings, limiter, embedder=None, store=None)
        return cls(settings, limiter, embedder=embedder, store=store_at("cache.url", settings.url))

    def variant(self, threshold: float | None, ttl: float | None) -> Dispatcher:
        """The dispatcher for these wishes, as far as they are stricter than the settings."""
        usual = self.settings
        strict = usual.threshold
        if threshold is not None and threshold > strict:
            strict = min(1.0, math.ceil(threshold / _STEP - 1e-9) * _STEP)
        life = usual.ttl if ttl is None or ttl <= 0 else _rounded(ttl)
        if life is not None and usual.ttl is not None:
            life = min(life, usual.ttl)
        if (strict, life) == (usual.threshold, usual.ttl):
            return self.plain
        known = self._variants.get((strict, life))
        if known is None:
            known = self._variants[strict, life] = self._made(strict, life)
            if len(self._variants) > _KEPT:
                self._variants.popitem(last=False)
        self._variants.move_to_end((strict, life))
        return known

    @property
    def failing(self) -> bool:
        """The cache is paused: its breaker is open."""
        return any(one.paused for one in (self.plain, *self._variants.values()))

    async def warm(self) -> None:
        """Do once what is slow the first time, before anybody waits for it."""
        circumstances(_FIRST_WORDS)
        if self.embedder is not None:
            await self.embedder.aembed([_FIRST_WORDS])

    async def close(self) -> None:
        """Finish all writes and release the store."""
        for one in self._variants.values():
            await one.aflush()
        await self.plain.aclose()

    def _made(self, threshold: float, ttl: float | None) -> Dispatcher:
        cache = None
        if self.store is not None:
            secret = self.settings.namespace_secret.get_secret_value().encode()
            # Who names a threshold gets nothing below it, however many neighbours agree.
            policy = Consensus(threshold, confidence=1.0 if threshold > self.settings.threshold else None)
            life = Lifetime(ttl, stale=self.settings.stale)
            cache = SemanticCache(self.embedder, self.store, policy=policy, ttl=life, namespace_secret=secret)
        # What this process keeps to itself, no other one asks for.
        shared = cache is not None and not isinstance(self.store, MemoryStore)
        try:
            return Dispatcher(cache, self._limiter, lease=self.settings.lease if shared else None)
        except ConfigError as error:
            raise ConfigError(f"cache.lease: {error}") from error


def store_at(setting: str, url: str) -> VectorStore:
    """The store of a URL. Raises `ConfigError`, which names the setting, and `MissingExtra`."""
    try:
        return store_from_url(url)
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from error


def embedder_of(settings: config.Settings) -> Embedder | None:
    """The embedder of a gateway, loaded; None for exact matches only. Raises what `default_embedder` raises."""
    name = settings.cache.embedder
    needed = settings.cache.enabled or any(one is not None and one.embeds for one in settings.compression.values())
    if name == "none" or not needed:
        return None
    try:
        embedder = default_embedder(None if name == "auto" else name)
        embedder.embed([_FIRST_WORDS])
    except (MissingExtra, EmbeddingError) as error:
        if name != "auto":
            raise ConfigError(f"cache.embedder: {error}") from error
        log.warning("no embedding model, questions are matched by their words alone: %s", error)
        return None
    # Torch gains from company, and many ask at once here.
    return BatchingEmbedder(embedder) if isinstance(embedder, SentenceTransformerEmbedder) else embedder


def _rounded(ttl: float) -> float:
    """Down to two digits."""
    unit = 10.0 ** (math.floor(math.log10(ttl)) - 1)
    return math.floor(ttl / unit + 1e-9) * unit
