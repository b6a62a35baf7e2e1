"""Other caches, where they are installed and what they need is there."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from benchmarks.cache_speed.askers import together
from benchmarks.cache_speed.inprocess import each
from benchmarks.cache_speed.measure import Arm
from benchmarks.cache_speed.world import Stub, World, query
from dispatch_core import SemanticCache, SentenceTransformerEmbedder, store_from_url

REDISEARCH = "DISPATCH_TEST_REDISEARCH_URL"
_STORED = 10_000


def litellm(texts: Sequence[str], payload: bytes, calls: int) -> Iterator[Arm]:
    """LiteLLM's cache in this process: its key and its store, nothing else of it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        caching: Any = import_module("litellm.caching.caching")
    except ImportError as error:
        print(f"litellm is not measured: {error}", file=sys.stderr)
        return
    cache = caching.Cache(type="local")
    cache.cache.max_size_in_memory = 2 * len(texts)
    asked = [
        {
            "model": "gpt-4o-mini",
            "messages": [
                {"role": "system", "content": "You are the assistant of a shop."},
                {"role": "user", "content": text},
            ],
            "temperature": 0,
        }
        for text in texts
    ]
    for question in asked:
        cache.add_cache({"choices": [{"message": {"content": payload.decode()}}]}, **question)
    if any(cache.get_cache(**question) is None for question in asked):
        raise SystemExit("litellm's cache does not find what was put into it")
    yield Arm("litellm, local cache", each(lambda question: cache.get_cache(**question), asked), calls, lambda: None)


def redisvl(world: World, calls: int) -> Iterator[Arm]:
    """RedisVL's semantic cache, and ours on the same RediSearch."""
    url = os.environ.get(REDISEARCH)
    if not url:
        return
    try:
        llm: Any = import_module("redisvl.extensions.cache.llm")
        vectorize: Any = import_module("redisvl.utils.vectorize")
    except ImportError as error:
        print(f"redisvl is not measured: {error}", file=sys.stderr)
        return
    encoder = SentenceTransformerEmbedder()
    stub = Stub(world.embedder, world.asked)

    def vectorizer(embed: Any) -> Any:
        return vectorize.CustomVectorizer(lambda text, **_: embed([text])[0].tolist())

    def theirs(name: str, embed: Any) -> Any:
        return llm.SemanticCache(
            name=f"dispatch-bench-{name}",
            distance_threshold=0.08,
            vectorizer=vectorizer(embed),
            redis_url=url,
            overwrite=True,
        )

    whole, bare = theirs("whole", encoder.embed), theirs("bare", stub.embed)
    store = store_from_url(url)
    ours = SemanticCache(stub, store)
    for number in range(_STORED):
        entry, vector = world.entry(ours, number)
        store.put(entry, vector)
        for cache in (whole, bare):
            cache.store(entry.text, entry.payload.decode(), vector=vector.tolist())
    asked = world.questions(ours)
    numbers = itertools.count()

    def new(text: str) -> str:
        return f"{text} ({next(numbers)})"

    async def acheck(text: str) -> object:
        return await whole.acheck(prompt=text)

    def store_ours(text: str) -> None:
        ours.store(ours.unseen(query(new(text))), world.payloads[0])

    yield Arm("redisvl check", each(lambda text: whole.check(prompt=text), asked), calls)
    yield Arm("100 askers, redisvl acheck", lambda calls: asyncio.run(together(acheck, asked, calls)), calls)
    yield Arm("redisvl check, stubbed", each(lambda text: bare.check(prompt=text), asked), calls)
    yield Arm("hit on RediSearch, stubbed", each(lambda text: ours.lookup(query(text)), asked), calls)
    yield Arm("redisvl store, stubbed", each(lambda text: bare.store(new(text), "answer"), asked), calls)
    yield Arm("store on RediSearch, stubbed", each(store_ours, asked), calls)
