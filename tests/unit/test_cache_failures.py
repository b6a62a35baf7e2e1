"""Failures that other caches are known for: each is impossible here, by one test that bears its name.

Those of the conversion of messages (tool calls lost, lists of content, streams) are looked for in the suites of the
fronts as well, with real messages.
"""

from __future__ import annotations

import ast
import asyncio
import json
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FORMS, Clock, CountingEmbedder, Either, FakeLimiter, FlakyStore, in_another_process
from flights import COST

from dispatch_core import (
    Dispatcher,
    EmbeddingError,
    Match,
    MemoryStore,
    Miss,
    Query,
    SemanticCache,
    SQLiteStore,
    StoreError,
    Threshold,
    Ticket,
    Usage,
)

QUERY = Query("how to reset my password")
NEAR = Query("how to reset a password")
FAR = Query("how do I boil an egg")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def cache(store, clock, form) -> Either:
    return Either(SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5), ttl=6, clock=clock), form)


@pytest.fixture
async def dispatcher(cache, form):
    either = Either(Dispatcher(cache.target, FakeLimiter()), form)
    yield either
    assert await either.flush(20)


async def _answered(cache: Either, query: Query, payload: bytes = b"answer") -> None:
    await cache.store(cache.target.unseen(query), payload)


async def _payload(cache: Either, query: Query) -> bytes | None:
    found = await cache.lookup(query)
    return found.entry.payload if isinstance(found, Match) else None


# Decisions


async def test_the_threshold_is_not_inverted_in_either_form(cache):
    """A distance that is compared like a similarity serves what is far, and refuses what is near."""
    await _answered(cache, QUERY)
    near = await cache.lookup(NEAR)
    assert near.score >= 0.5
    far = await cache.lookup(FAR)
    assert isinstance(far, Miss)
    assert far.nearest.score < 0.5
    cache.target.policy = Threshold(near.score + 0.01)
    assert isinstance(await cache.lookup(NEAR), Miss)


async def test_both_forms_decide_alike(cache):
    await _answered(cache, QUERY)
    for query in (QUERY, NEAR, FAR, Query("how to reset"), Query("password"), Query("")):
        plain, awaited = cache.target.lookup(query), await cache.target.alookup(query)
        assert type(plain) is type(awaited)
        if isinstance(plain, Match):
            assert (plain.entry, plain.score) == (awaited.entry, awaited.score)
        else:
            assert (plain.reason, plain.nearest) == (awaited.reason, awaited.nearest)


# Identity


async def test_the_same_prompt_on_two_models_neither_overwrites_nor_masks(cache):
    models = [replace(QUERY, scope=f"model {number}") for number in range(3)]
    for query in models:
        await _answered(cache, query, query.scope.encode())
    for query in models:
        assert await _payload(cache, query) == query.scope.encode()
        assert await _payload(cache, replace(NEAR, scope=query.scope)) == query.scope.encode()


async def test_a_tenant_is_a_filter_of_the_search_and_not_of_what_it_found(cache):
    """Filtered afterwards, the nearer questions of others would leave nothing of ours among the nearest."""
    await _answered(cache, QUERY, b"ours")
    for number in range(50):
        await _answered(cache, Query(NEAR.text, namespace=f"tenant {number}"), b"theirs")
    assert await _payload(cache, NEAR) == b"ours"


async def test_the_key_of_a_tenant_is_not_made_of_the_whole_request(cache):
    """With the text in the namespace every question has a space of its own, and nothing is ever found by meaning."""
    ours = replace(QUERY, namespace="tenant", scope="model")
    await _answered(cache, ours)
    entry = (await cache.lookup(ours)).entry
    near = await cache.lookup(replace(NEAR, namespace="tenant", scope="model"))
    assert near.kind == "semantic"
    assert (near.entry.namespace, near.entry.scope) == (entry.namespace, entry.scope)
    assert cache.target.unseen(replace(FAR, namespace="tenant", scope="model")).scope == entry.scope


def test_parameters_have_one_digest_in_every_process():
    """A digest by ``hash`` or by ``repr`` is another one in each process: nothing is ever found."""
    code = (
        "from dispatch_core.keys import scope_digest\n"
        "from dispatch_core import Query, SemanticCache, MemoryStore\n"
        "facts = dict(sorted({'model': 'm', 'temperature': 0.1, 'stop': ['a', 'b'], 'tools': None}.items(),"
        " key=lambda item: hash(item[0])))\n"
        "print(SemanticCache(None, MemoryStore()).unseen(Query('q', scope_digest(facts), 'tenant')).id)"
    )
    assert len({in_another_process(code) for _ in range(3)}) == 1


async def test_a_tenant_that_is_named_in_the_prompt_alone_is_no_border_but_a_namespace_is(cache):
    """A hint in the text leaves two tenants' questions at a cosine of .9 and more."""
    hinted = [Query(f"for tenant {name}: how to reset my password of this account") for name in ("acme", "umbra")]
    await _answered(cache, hinted[0], b"of acme")
    assert await _payload(cache, hinted[1]) == b"of acme"
    apart = [replace(query, namespace=name) for query, name in zip(hinted, ("acme", "umbra"), strict=True)]
    await _answered(cache, apart[0], b"of acme")
    assert isinstance(await cache.lookup(apart[1]), Miss)
    assert (await cache.lookup(apart[1])).nearest is None


async def test_a_long_beginning_in_common_makes_no_two_questions_one(cache):
    """Cut off at the encoder's window, all that begins alike has a cosine of 1."""
    beginning = "you are a helpful assistant " * 200
    await _answered(cache, Query(f"{beginning} who spoke first"))
    miss = await cache.lookup(Query(f"{beginning} what does it cost"))
    assert (miss.reason, miss.vector, cache.target.embedder.texts) == ("too-long", None, [])


# Time


async def test_reads_do_not_refresh_a_life_of_six_seconds_to_fourteen(cache, clock):
    await _answered(cache, QUERY)
    served = []
    for _ in range(14):
        clock.now += 1
        served.append([await _payload(cache, query) is not None for query in (QUERY, NEAR)])
    assert served[4] == [True, True]
    assert served[5:] == [[False, False]] * 9


# What goes wrong


@pytest.mark.parametrize("error", [StoreError("down"), OSError("gone"), RuntimeError("a bug")])
async def test_an_error_of_the_store_never_fails_the_call(dispatcher, store, error):
    store.error = error
    for _ in range(3):
        ticket = await dispatcher.begin(QUERY, COST)
        assert isinstance(ticket, Ticket)
        await dispatcher.finish(ticket, b"answer", Usage(1, 2))
        assert ticket.reservation.fate == [("settled", Usage(1, 2))]
        assert await dispatcher.flush(20)


async def test_a_slow_update_does_not_stall_the_event_loop(store):
    dispatcher = Dispatcher(SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5)))
    gate, entered = threading.Event(), threading.Event()

    def slow(entry, vector):
        entered.set()
        assert gate.wait(60)

    store.put = slow
    await dispatcher.afinish(await dispatcher.abegin(QUERY), b"answer")
    # The write waits for us: would it hold the loop, nobody would ever open the gate.
    assert await asyncio.to_thread(entered.wait, 60)
    for _ in range(100):
        await asyncio.sleep(0)
    assert isinstance(await dispatcher.abegin(FAR), Ticket)
    gate.set()
    assert await dispatcher.aflush(20)


async def test_a_store_on_a_disk_is_asked_off_the_event_loop(tmp_path, monkeypatch):
    threads = set()
    store = SQLiteStore(tmp_path / "a.db")
    for name in ("get", "search", "put"):
        call = getattr(store, name)

        def spied(*args, _call=call, **given):
            threads.add(threading.get_ident())
            return _call(*args, **given)

        monkeypatch.setattr(store, name, spied)
    cache = SemanticCache(CountingEmbedder(), store, policy=Threshold(0.5))
    await cache.astore(await cache.alookup(QUERY), b"answer")
    assert isinstance(await cache.alookup(NEAR), Match)
    assert threads
    assert threading.get_ident() not in threads
    await cache.aclose()


async def test_a_failed_embedding_is_never_stored(dispatcher, store):
    embedder = dispatcher.target.cache.embedder
    embedder.error = EmbeddingError("down")
    ticket = await dispatcher.begin(QUERY)
    await dispatcher.finish(ticket, b"answer")
    assert await dispatcher.flush(20)
    assert len(store) == 0
    embedder.error = None
    assert isinstance(await dispatcher.begin(NEAR), Ticket)


async def test_an_answer_that_was_cut_off_is_never_replayed(dispatcher, store):
    """A front says of such an answer that it is not worth storing: nobody else gets it either."""
    ticket = await dispatcher.begin(QUERY)
    await dispatcher.finish(ticket, None, Usage(1, 2))
    assert await dispatcher.flush(20)
    assert len(store) == 0
    for query in (QUERY, NEAR):
        found = await dispatcher.begin(query)
        assert isinstance(found, Ticket)
        dispatcher.target.abort(found)


# What is stored


async def test_what_a_front_has_stored_comes_back_to_the_byte(cache, tmp_path, form):
    """Tool calls, usage and all else: the cache reads nothing into an answer, and takes nothing from it."""
    call = {"name": "pay", "args": {"amount": 1.0, "to": ["a", None]}, "id": "call_1"}
    payload = json.dumps({"text": "", "tool_calls": [call], "x": "\ud800"}).encode()
    exact = replace(QUERY, semantic=False)
    file = Either(SemanticCache(CountingEmbedder(), SQLiteStore(tmp_path / "a.db"), policy=Threshold(0.5)), form)
    for either in (cache, file):
        await _answered(either, exact, payload)
        assert await _payload(either, exact) == payload
    await file.close()


@pytest.mark.parametrize(
    "text", ["[{'type': 'text', 'text': 'hi'}]", "[]", "\x00", "{}", "None", "\ud800", "[" * 999]
)
async def test_no_text_crashes_a_lookup(cache, text):
    await _answered(cache, Query(text))
    assert await _payload(cache, Query(text)) == b"answer"
    assert (await cache.explain(text)).hit


class Exploding:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


async def test_a_pickle_in_the_store_is_bytes_like_any_other(cache):
    await _answered(cache, QUERY, pickle.dumps(Exploding()))
    assert await _payload(cache, QUERY) == pickle.dumps(Exploding())
    assert (await cache.explain(NEAR)).hit


def test_nothing_in_the_packages_reads_code_from_data():
    """Neither pickle nor eval nor their kin, anywhere: what a shared store holds may come from anybody."""
    modules = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle"}
    calls = {"eval", "exec", "literal_eval", "__import__", "unsafe_load"}
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for package in ("core/dispatch_core", "langchain_dispatch", "llamaindex_dispatch")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _imported(node) & modules or _called(node) in calls
    ]
    assert found == []


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").split(".")[0]}
    return {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()


def _called(node: ast.AST) -> str:
    if not isinstance(node, ast.Call):
        return ""
    # Redis has an `eval` of its own, which runs there.
    known = isinstance(node.func, ast.Attribute) and node.func.attr != "eval"
    return node.func.attr if known else getattr(node.func, "id", "")


def test_a_stream_that_breaks_leaves_nothing_and_a_hit_is_whole():
    """Chunks are the front's: before the last one nothing is stored, and what is served is the whole answer."""
    dispatcher = Dispatcher(SemanticCache(CountingEmbedder(), MemoryStore(), policy=Threshold(0.5)))
    dispatcher.abort(dispatcher.begin(QUERY))
    ticket = dispatcher.begin(QUERY)
    assert isinstance(ticket, Ticket)
    assert len(dispatcher.cache.stored_in) == 0
    dispatcher.finish(ticket, b"first, second, last")
    assert dispatcher.begin(NEAR).entry.payload == b"first, second, last"
