"""LangChain caches that answer by meaning: `set_llm_cache(SemanticCache())`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLanguageModel, LanguageModelInput
from langchain_core.messages import BaseMessage

from dispatch_core import (
    Consensus,
    Dispatcher,
    Eligibility,
    Embedder,
    Explanation,
    Lifetime,
    Policy,
    Prices,
    Stats,
    VectorStore,
    redis_store,
    store_from_url,
)
from dispatch_core import SemanticCache as CoreCache
from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.errors import ConfigError
from dispatch_core.keys import digest
from dispatch_core.stores import Index
from langchain_dispatch.answers import as_text
from langchain_dispatch.call import Call
from langchain_dispatch.embedder import as_embedder
from langchain_dispatch.exchange import Exchange
from langchain_dispatch.observer import observer
from langchain_dispatch.query import call_of, query_of, query_of_messages
from langchain_dispatch.shape import NO_SHAPE, Shape
from langchain_dispatch.shared import Shared
from langchain_dispatch.turns import messages_of

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_KEPT = 2048
DEFAULT_THRESHOLD = 0.92


class CacheOptions(TypedDict, total=False):
    """What the core's `SemanticCache` and `Dispatcher` take besides, as there."""

    eligibility: Eligibility | None
    tags: Collection[str]
    sources: Mapping[str, str] | None
    shadow: bool
    prices: Prices | None
    single_flight: bool
    flight_timeout: float


class SemanticCache(Shared, BaseCache):
    """An LLM cache that serves an answer to a question of the same meaning.

    Only the last human turn is compared by meaning, when it is one line of plain text; the model, its parameters,
    the system prompt and all earlier turns must match exactly. Calls with tools, tool messages, images or text that
    the encoder cannot read are matched exactly; calls without a stable identity go past the cache.

    ``embedder`` is a core `Embedder`, LangChain `Embeddings` or the name of a sentence-transformers model;
    ``store`` a core store or a URL (``memory://``, ``sqlite:///file.db``, ``redis://…``); ``threshold`` the cosine
    similarity from which the default policy, `Consensus`, takes one neighbour for the same question (a ``policy``
    replaces it); ``ttl`` is in seconds, or a `Lifetime`; ``namespace`` separates tenants. With ``on_error="miss"`` a
    broken cache never fails a call. The other ``options`` are those of the core's `SemanticCache` and `Dispatcher`.

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from dispatch_core import HashingEmbedder
    >>> cache = SemanticCache(embedder=HashingEmbedder())
    >>> model = FakeListChatModel(responses=["Paris.", "never asked"], cache=cache)
    >>> model.invoke("What is the capital of France?").content
    'Paris.'
    >>> model.invoke("what is the capital of France").content
    'Paris.'
    """

    def __init__(
        self,
        *,
        embedder: Embedder | Embeddings | str | None = None,
        store: VectorStore | str = "memory://",
        threshold: float = DEFAULT_THRESHOLD,
        policy: Policy | None = None,
        ttl: Lifetime | float | None = None,
        namespace: str = "",
        on_error: Literal["miss", "raise"] = "miss",
        **options: Unpack[CacheOptions],
    ) -> None:
        if not isinstance(namespace, str):
            raise ConfigError(f"namespace is a string, got {type(namespace).__name__}")
        if not isinstance(store, str) and not hasattr(store, "asearch"):
            raise ConfigError(f"store is a store of dispatch_core or a URL, got {type(store).__name__}")
        _refuse_unknown(options, CacheOptions.__annotations__)
        core = CoreCache(
            as_embedder(embedder),
            store_from_url(store) if isinstance(store, str) else store,
            policy=policy or Consensus(threshold),
            ttl=ttl,
            eligibility=options.get("eligibility"),
            tags=options.get("tags", ()),
            sources=options.get("sources"),
            shadow=options.get("shadow", False),
        )
        self.dispatcher = Dispatcher(core, on_error=on_error, **_of_dispatcher(options))
        self.namespace = namespace
        self._observer = observer()
        self._looked_up: OrderedDict[str, Exchange] = OrderedDict()
        self._lock = threading.Lock()
        self._refused: set[str] = set()

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return run(self._lookup(prompt, llm_string))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await arun(self._lookup(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        run(self._update(prompt, llm_string, return_val))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await arun(self._update(prompt, llm_string, return_val))

    def clear(self, **kwargs: Any) -> None:
        """Forget this cache's namespace; with ``tags=[...]``, of it what carries any of them.

        Raises `StoreError`: who clears must know.
        """
        _refuse_unknown(kwargs, ("tags",))
        self.dispatcher.clear(self.namespace, tags=kwargs.get("tags"))

    async def aclear(self, **kwargs: Any) -> None:
        _refuse_unknown(kwargs, ("tags",))
        await self.dispatcher.aclear(self.namespace, tags=kwargs.get("tags"))

    def reject(self, hit_id: str) -> bool:
        """A hit was wrong: its question is asked anew. ``message.response_metadata["dispatch"]`` has its ``hit_id``.

        False if it is not among the last few thousand of this process. Raises `StoreError`: who takes back must know.
        """
        return self.dispatcher.reject(hit_id)

    async def areject(self, hit_id: str) -> bool:
        return await self.dispatcher.areject(hit_id)

    def explain(self, question: LanguageModelInput, model: BaseLanguageModel[Any]) -> Explanation:
        """What ``model.invoke(question)`` would find here, and why. Changes nothing, asks no model.

        In a chain the model is given more than the question: ``explain(prompt.invoke({...}), model)``. The question
        alone, without the system prompt, is another one, and finds nothing.
        """
        core, query = self.dispatcher.cache, query_of(*call_of(question, model), self.namespace)
        if core is None or query is None:
            return Explanation(str(question), False, "no-stable-identity")
        return core.explain(query)

    def stats(self) -> Stats:
        return self.dispatcher.stats()

    def flush(self) -> None:
        """Wait until all answers so far are written."""
        self.dispatcher.flush()

    def close(self) -> None:
        """Finish the writes and release the store."""
        self.dispatcher.close()

    async def aclose(self) -> None:
        await self.dispatcher.aclose()

    def exchange(self, question: str | list[BaseMessage], llm_string: str, shape: Shape = NO_SHAPE) -> Exchange:
        """A question through this cache, for one who says at any rate how it ended."""
        read: Any = query_of if isinstance(question, str) else query_of_messages
        return Exchange(
            self.dispatcher, read(question, llm_string, self.namespace, shape), shape, refused=self._refused
        )

    def _lookup(self, prompt: str, llm_string: str) -> Flow[RETURN_VAL_TYPE | None]:
        exchange, call = self._announced(prompt, llm_string)
        answer = yield from exchange.begin()
        if answer is not None:
            self._observer.parsers.answered(answer.generations, exchange)
            return answer.generations
        if call is None:
            self._keep(exchange, digest(prompt, llm_string))
        elif exchange.open:
            yield from step(self._observer.hold, self._observer.ahold, call)
        return None

    def _announced(self, prompt: str, llm_string: str) -> tuple[Exchange, Call | None]:
        """Of a call that was announced we know the schema and will hear the end; nobody may wait for any other."""
        messages = messages_of(prompt)
        call = None if messages is None else self._observer.asking(messages)
        if call is None:
            query = query_of(prompt, llm_string, self.namespace)
            return Exchange(self.dispatcher, query, refused=self._refused, alone=True), None
        exchange = call.exchange = self.exchange(prompt, llm_string, call.shape())
        call.key = digest(prompt, llm_string)
        return exchange, call

    def _update(self, prompt: str, llm_string: str, generations: RETURN_VAL_TYPE) -> Flow[None]:
        key = digest(prompt, llm_string)
        if "output_version" not in llm_string:
            generations = as_text(generations)
        call = self._observer.answered(key)
        if call is not None and call.exchange is not None:
            self._observer.parsers.answered(generations, call.exchange)
            yield from call.exchange.finish(generations, call.chunks)
            return
        with self._lock:
            exchange = self._looked_up.pop(key, None)
        if exchange is None:
            exchange = self.exchange(prompt, llm_string)
        self._observer.parsers.answered(generations, exchange)
        yield from exchange.finish(generations)

    def _keep(self, exchange: Exchange, key: str) -> None:
        """LangChain calls `update` with the same two strings: the ticket saves the second embedding."""
        with self._lock:
            self._looked_up[key] = exchange
            while len(self._looked_up) > _KEPT:
                self._looked_up.popitem(last=False)


class SemanticRedisCache(SemanticCache):
    """`SemanticCache` on a Redis or Valkey server, shared by all processes that use it.

    Give ``redis_url`` or a ``redis_client`` (bytes, not ``decode_responses``) and, if it must be a certain one, an
    ``async_redis_client``. ``index`` says how the server is searched: ``"redisearch"`` by RediSearch's index,
    ``"vectorset"`` by the vector sets of any Redis ≥ 8.0, ``"near"`` in process, with any Redis ≥ 6 or Valkey;
    ``"auto"`` asks the server at the first use, and keeps to what is in use (`RedisAutoStore`). An unreachable server
    makes misses, not errors, unless ``on_error="raise"``:

    >>> from langchain_core.language_models import FakeListChatModel
    >>> from dispatch_core import HashingEmbedder
    >>> cache = SemanticRedisCache("redis://localhost:1", embedder=HashingEmbedder())
    >>> FakeListChatModel(responses=["hello"], cache=cache).invoke("How do I greet a cat?").content
    'hello'
    >>> cache.close()
    >>> cache.stats().failures > 0
    True
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        embedder: Embedder | Embeddings | str | None = None,
        threshold: float = DEFAULT_THRESHOLD,
        policy: Policy | None = None,
        ttl: Lifetime | float | None = None,
        namespace: str = "",
        index: Index = "auto",
        redis_client: redis.Redis | None = None,
        async_redis_client: redis.asyncio.Redis | None = None,
        on_error: Literal["miss", "raise"] = "miss",
        **options: Unpack[CacheOptions],
    ) -> None:
        if redis_url is None and redis_client is None:
            redis_url = "redis://localhost:6379"
        super().__init__(
            embedder=embedder,
            store=redis_store(redis_url, index=index, client=redis_client, async_client=async_redis_client),
            threshold=threshold,
            policy=policy,
            ttl=ttl,
            namespace=namespace,
            on_error=on_error,
            **options,
        )


def _of_dispatcher(options: CacheOptions) -> dict[str, Any]:
    names = ("prices", "single_flight", "flight_timeout")
    return {name: options[name] for name in names if name in options}  # type: ignore[literal-required]


def _refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """A misspelt option that is ignored costs more than one that is refused."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"unknown options {unknown}; known are {sorted(known)}")
