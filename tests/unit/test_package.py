"""What the package shows and what it costs to import."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import import_module

import pytest
from fakes import in_another_process

import dispatch_core
from dispatch_core import (
    ConfigError,
    DimensionMismatch,
    LimitExceeded,
    MemoryStore,
    MissingExtra,
    RedisAutoStore,
    RediSearchStore,
    RedisNearStore,
    RequestTooLarge,
    SQLiteStore,
    VectorSetStore,
    errors,
    store_from_url,
)

MODELS = ["torch", "transformers", "sentence_transformers"]
PACKAGES = ["dispatch_core", "dispatch_core.embed", "dispatch_core.limit", "dispatch_core.stores"]
STDLIB = frozenset(sys.stdlib_module_names)
HEAVY = [
    *MODELS,
    "redis",
    "pymilvus",
    "milvus_lite",
    "chromadb",
    "langchain_core",
    "langchain",
    "llama_index",
    "onnxruntime",
    "openvino",
    "openai",
]


def _drawn_tree() -> dict[str, str]:
    """Each exception in the module's docstring, and the one it is drawn under."""
    parents, tree = {}, {}
    for line in errors.__doc__.splitlines()[2:]:
        drawn = re.match(r"^([│ ]*(?:├── |└── )?)(\w+)", line)
        if drawn:
            depth = len(drawn[1]) // 4
            parents[depth] = drawn[2]
            tree[drawn[2]] = parents[depth - 1] if depth else "Exception"
    return tree


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    assert _drawn_tree() == {name: kind.__bases__[0].__name__ for name, kind in classes.items()}
    assert {name for name, kind in classes.items() if issubclass(kind, ValueError)} == {"ConfigError"}
    assert {name for name, kind in classes.items() if issubclass(kind, ImportError)} == {"MissingExtra"}


def test_every_exception_is_exported():
    assert set(_drawn_tree()) <= set(dispatch_core.__all__)


def test_the_exported_names_are_sorted_and_exist():
    assert list(dispatch_core.__all__) == sorted(set(dispatch_core.__all__))
    for name in dispatch_core.__all__:
        assert getattr(dispatch_core, name).__doc__


def test_errors_name_their_facts():
    assert (DimensionMismatch(3, 4).expected, DimensionMismatch(3, 4).actual) == (3, 4)
    assert (RequestTooLarge(9, 5).requested, RequestTooLarge(9, 5).limit) == (9, 5)
    assert re.search(r"\b9\b.*\b5\b", str(RequestTooLarge(9, 5)))
    assert LimitExceeded("full", 1.5).retry_after == 1.5
    assert MissingExtra("A thing", "redis").extra == "redis"


@pytest.mark.parametrize("package", ["dispatch_core", "langchain_dispatch", "llamaindex_dispatch"])
def test_importing_a_package_imports_nothing_that_only_its_parts_need(package: str):
    theirs = {"dispatch_core": "", "langchain_dispatch": "langchain_core", "llamaindex_dispatch": "llama_index.core"}
    code = f"""
import sys
{f"import {theirs[package]}" if theirs[package] else ""}
before = set(sys.modules)
import {package}
print(sorted(set(sys.modules) - before))
"""
    own = {"dispatch_core", "dispatch_core._lazy", package}
    imported = {name for name in ast.literal_eval(in_another_process(code)) if name.split(".")[0] not in STDLIB}
    assert imported == own


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_of_a_package_is_there_without_what_is_optional(package: str):
    code = f"""
import sys
from {package} import *
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert in_another_process(code) == "[]"


@pytest.mark.parametrize("package", [*PACKAGES, "langchain_dispatch", "llamaindex_dispatch"])
def test_a_package_shows_its_names_before_they_are_asked_for_and_knows_no_others(package: str):
    shown = import_module(package)
    assert set(shown.__all__) <= set(dir(shown))
    for name in shown.__all__:
        assert getattr(shown, name) is not None
    with pytest.raises(AttributeError, match=rf"'{package}' has no attribute 'Nothing'"):
        _ = shown.Nothing


@pytest.mark.parametrize("package", [*PACKAGES, "langchain_dispatch", "llamaindex_dispatch"])
def test_what_a_type_checker_sees_is_what_there_is(package: str):
    shown = import_module(package)
    imported = {
        name.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(shown)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}.")
        for name in node.names
    }
    assert sorted(imported) == sorted(shown.__all__)
    for name, module in imported.items():
        assert getattr(import_module(module), name) is getattr(shown, name)


def test_a_redis_store_without_redis_says_what_to_install():
    code = """
import sys
sys.modules["redis"] = None
from dispatch_core import MissingExtra, store_from_url
store_from_url("memory://")
try:
    store_from_url("redis://localhost")
except MissingExtra as missing:
    print(missing)
"""
    assert "pip install 'ai-dispatcher[redis]'" in in_another_process(code)


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("pymilvus", "store_from_url('milvus+http://localhost')", "milvus"),
        ("pymilvus", "MilvusStore('cache.db')", "milvus"),
        ("milvus_lite", "MilvusStore('cache.db')", "milvus"),
        ("chromadb", "store_from_url('chroma+http://localhost')", "chroma"),
        ("chromadb", "ChromaStore()", "chroma"),
    ],
)
def test_a_store_without_its_client_says_what_to_install(package, call, extra, tmp_path):
    code = f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.modules[{package!r}] = None
from dispatch_core import ChromaStore, MilvusStore, MissingExtra, store_from_url
try:
    {call}
except MissingExtra as missing:
    print(missing)
"""
    assert f"pip install 'ai-dispatcher[{extra}]'" in in_another_process(code)


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_a_url_names_a_memory_store(url):
    assert isinstance(store_from_url(url), MemoryStore)


def test_a_url_names_a_sqlite_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///relative.db", f"sqlite:///{tmp_path}/absolute.db"):
        store = store_from_url(url)
        assert isinstance(store, SQLiteStore)
        store.close()
    assert {path.name for path in tmp_path.glob("*.db")} == {"relative.db", "absolute.db"}


@pytest.mark.parametrize("url", ["redis://localhost", "rediss://user:secret@host:6380/1", "unix:///run/redis.sock"])
def test_a_url_names_a_redis_store_and_nobody_is_asked_yet(url):
    store = store_from_url(url)
    assert isinstance(store, RedisAutoStore)
    assert store.chosen is None
    store.close()


INDEXES = [("near", RedisNearStore), ("vectorset", VectorSetStore), ("redisearch", RediSearchStore)]


@pytest.mark.parametrize(("index", "kind"), [*INDEXES, ("auto", RedisAutoStore)])
@pytest.mark.parametrize(
    "address", ["redis://localhost?{}", "redis://host/1?socket_timeout=3&{}", "unix://s?{}&db=2"]
)
def test_a_url_names_the_index_of_a_redis(index, kind, address):
    store = store_from_url(address.format(f"index={index}"))
    assert type(store) is kind
    store.close()


def test_the_other_parameters_of_a_url_reach_the_client():
    store = store_from_url("redis://host/1?socket_timeout=3&index=near&client_name=a%26b")
    settings = store._redis._client.connection_pool.connection_kwargs
    assert (settings["socket_timeout"], settings["client_name"], settings["db"]) == (3.0, "a&b", 1)
    assert "index" not in settings
    store.close()


def test_an_unknown_index_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match="'auto', 'near', 'vectorset', 'redisearch', got 'flat'"):
        store_from_url("redis://localhost?index=flat")


@pytest.mark.parametrize("url", ["", "memory", "milvus://host", "sqlite://", "REDIS://host", "redis:host"])
def test_an_unknown_url_is_refused_with_those_that_are_known(url):
    with pytest.raises(ConfigError, match=r"known are memory://, sqlite:///file\.db \(three slashes\), redis://"):
        store_from_url(url)


def test_a_refused_url_does_not_show_its_password():
    with pytest.raises(ConfigError) as refused:
        store_from_url("milvus://user:secret@host")
    assert "secret" not in str(refused.value)


def test_a_memory_store_gives_up_its_oldest_entry_first():
    from fakes import made, unit

    store = MemoryStore(max_entries=2)
    for name in ("a", "b", "a", "c"):
        store.put(made(name), unit(1, 0))
    assert len(store) == 2
    found = {match.entry.id for match in store.search(unit(1, 0), scope=made("").scope, limit=9, now=0.0)}
    assert found == {made("a").id, made("c").id}
    with pytest.raises(ConfigError):
        MemoryStore(max_entries=0)
