"""What stores of Milvus and Chroma promise besides: files and who has them, servers that fail, bounds."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import Either, in_another_process, made, unit
from places import COLLECTIONS, EAST, HERE, HOSTILE, NORTH, NOW, found, place_of
from servers import Server, free_port

from dispatch_core import ChromaStore, ConfigError, MilvusStore, StoreError, store_from_url
from dispatch_core.keys import digest
from dispatch_core.stores import _collections, milvus


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture(params=COLLECTIONS)
def place(request: pytest.FixtureRequest, tmp_path: Path):
    return place_of(request.param, request, tmp_path)


# What lies where


async def test_vectors_of_two_lengths_live_in_two_scopes(store):
    await store.put(made("a"), EAST)
    await store.put(made("b", scope="elsewhere"), unit(1, 0))
    assert await found(store) == [digest("a")]
    assert await found(store, unit(1, 0), scope=digest("elsewhere")) == [digest("b")]
    assert await store.get(digest("b"), now=NOW) == made("b", scope="elsewhere")
    assert await store.clear() == 2


async def test_an_entry_whose_vector_changes_its_length_is_one_entry(store):
    await store.put(made("a"), EAST)
    await store.put(made("a", scope="elsewhere"), unit(1, 0))
    assert await found(store) == []
    assert await store.clear() == 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_names_are_names(store, text):
    entry = made("a")
    entry = type(entry)(text, text, text, "text", b"payload", entry.usage, entry.created)
    await store.put(entry, EAST)
    await store.put(made("b"), EAST)
    assert await store.get(text, now=NOW) == entry
    assert await found(store, scope=text) == [text]
    assert await store.clear(text) == 1
    assert await found(store) == [digest("b")]


async def test_entries_that_expired_are_forgotten_now_and_then(store, monkeypatch):
    monkeypatch.setattr(_collections, "_SWEEP_EVERY", 4)
    created = made("a").created
    await store.put(made("long over", expires=created - 100), EAST)
    await store.put(made("just over", expires=created - 1), EAST)
    await store.put(made("long over too", expires=created - 100), None)
    await store.put(made("fresh"), NORTH)
    assert await store.clear() == 2


# Bounds


async def test_an_entry_larger_than_milvus_keeps_is_refused_and_not_cut(milvus_kept, prefix, form, monkeypatch):
    store = Either(milvus_kept(prefix=prefix, timeout=20), form)
    await store.put(made("a", payload=b"old"), EAST)
    monkeypatch.setattr(milvus, "_PIECES", 2)
    with pytest.raises(StoreError, match="more than Milvus keeps"):
        await store.put(made("a", payload=b"x" * 200_000), EAST)
    assert (await store.get(digest("a"), now=NOW)).payload == b"old"
    await store.close()


async def test_milvus_finds_what_is_flushed_and_what_is_not(milvus_kept, prefix, form, monkeypatch):
    monkeypatch.setattr(milvus, "_FLUSH_EVERY", 3)
    store = Either(milvus_kept(prefix=prefix, timeout=20), form)
    for number in range(10):
        await store.put(made(f"{number}"), unit(1, number, 0))
    await store.put(made("0", scope="elsewhere"), EAST)
    await store.put(made("1"), None)
    await store.delete(digest("2"))
    assert await found(store) == [digest(f"{number}") for number in range(3, 10)]
    assert await found(store, scope=digest("elsewhere")) == [digest("0")]
    await store.close()


# Files


FILES: list[tuple[type, str]] = [(MilvusStore, "cache.db"), (ChromaStore, "folder")]


@pytest.mark.parametrize(("kind", "name"), FILES, ids=["milvus", "chroma"])
async def test_a_file_survives_all_its_stores(kind: Callable[..., Any], name: str, tmp_path, form):
    first, second = (Either(kind(tmp_path / name, timeout=20), form) for _ in range(2))
    await first.put(made("a"), EAST)
    await first.close()
    assert await found(second) == [digest("a")]
    await second.put(made("b"), None)
    await second.close()
    with pytest.raises(StoreError, match="closed"):
        await second.get(digest("a"), now=NOW)
    again = Either(kind(tmp_path / name, timeout=20), form)
    assert await found(again) == [digest("a")]
    assert await again.get(digest("b"), now=NOW) == made("b")
    await again.close()


_OPENS = """
import sys
from dispatch_core import MilvusStore, StoreError
try:
    MilvusStore(sys.argv[1]).close()
    print("opened")
except StoreError as error:
    print(error)
"""


def test_a_milvus_file_belongs_to_one_process_at_a_time(tmp_path):
    path = tmp_path / "cache.db"
    store = MilvusStore(path)
    assert "another process has it" in in_another_process(_OPENS, str(path))
    store.close()
    assert in_another_process(_OPENS, str(path)) == "opened"


def test_a_url_names_a_file_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url, kind in (
        ("milvus:///relative.db", MilvusStore),
        (f"milvus:///{tmp_path}/absolute.db", MilvusStore),
        ("chroma:///folder", ChromaStore),
        ("chroma://", ChromaStore),
    ):
        store = store_from_url(url)
        assert isinstance(store, kind)
        store.close()
    assert {path.name for path in tmp_path.iterdir()} == {"relative.db", "absolute.db", "folder"}


def test_a_file_that_cannot_be_had_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"no folder")
    for make in (lambda: MilvusStore(tmp_path / "no" / "cache.db"), lambda: ChromaStore(tmp_path / "file")):
        with pytest.raises(StoreError):
            make()


# Servers


@pytest.mark.parametrize("url", ["milvus+http://localhost", "milvus+https://localhost:1", "chroma+https://localhost"])
def test_no_server_is_asked_before_the_first_call(url):
    store_from_url(url).close()


@pytest.mark.parametrize("kind", ["milvus", "chroma"])
async def test_a_server_that_is_not_there_is_a_store_error(kind, form):
    url = f"http://127.0.0.1:{free_port()}"
    target = MilvusStore(url, timeout=0.1) if kind == "milvus" else ChromaStore(url=url, timeout=0.1)
    store = Either(target, form)
    with pytest.raises(StoreError) as failed:
        await store.put(made("a", text="a secret", payload=b"a secret"), EAST)
    assert failed.value.__cause__ is not None
    assert "secret" not in str(failed.value)
    await store.close()


def test_chroma_reaches_every_entry_of_many_small_caches():
    """What several processes write at the same time Chroma adds at once. With its own settings one such graph in
    forty had an entry that no search came to."""
    import chromadb
    from chromadb.config import Settings

    rows = np.random.default_rng(3).normal(size=(200, 32)).astype(np.float32)
    lost = []
    client = chromadb.EphemeralClient(settings=Settings(anonymized_telemetry=False))
    for number in range(100):
        prefix = f"t{number}x{uuid.uuid4().hex}"
        store = ChromaStore(client=client, prefix=prefix, timeout=20)
        store.put(made("first"), rows[0])
        [collection] = [one for one in client.list_collections() if prefix in one.name and one.name.endswith("32")]
        order = np.random.default_rng(number).permutation(200)[:30]
        for start in (0, 10, 20):
            batch = order[start : start + 10]
            collection.upsert(ids=[str(row) for row in batch], embeddings=rows[batch], metadatas=[{"a": 1}] * 10)
            found = collection.query(query_embeddings=rows[order[: start + 10]], n_results=2)["ids"]
        lost += [(number, row) for row, ids in zip(order, found, strict=True) if str(row) not in ids]
        client.delete_collection(collection.name)
        store.close()
    assert not lost


async def test_a_chroma_server_that_comes_back_empty_is_used_again(form):
    server = Server("chroma").start()
    store = Either(ChromaStore(url=server.url, timeout=20), form)
    await store.put(made("a"), EAST)
    server.stop()
    with pytest.raises(StoreError):
        await store.search(EAST, scope=HERE, limit=1, now=NOW)
    server.start()
    assert await found(store) == []
    await store.put(made("b"), EAST)
    assert await found(store) == [digest("b")]
    await store.close()
    server.stop()


# Settings


def test_clients_of_the_callers_are_used_and_left_open(tmp_path):
    import chromadb
    from pymilvus import MilvusClient

    in_file, in_folder = MilvusClient(str(tmp_path / "cache.db")), chromadb.PersistentClient(tmp_path / "folder")
    for store in (MilvusStore(client=in_file, timeout=20), ChromaStore(client=in_folder, timeout=20)):
        store.put(made("a"), EAST)
        assert [match.entry for match in store.search(EAST, scope=HERE, limit=9, now=NOW)] == [made("a")]
        store.close()
    with pytest.raises(ConfigError, match="give it as `client`"):
        ChromaStore(tmp_path / "folder")
    assert in_file.list_collections()
    assert in_folder.list_collections()
    in_file.close()
    in_folder.close()
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(tmp_path / "cache.db"))


@pytest.mark.parametrize(
    "make",
    [
        MilvusStore,
        lambda: MilvusStore("cache.sqlite"),
        lambda: MilvusStore("http://localhost", prefix="no-dashes"),
        lambda: MilvusStore("http://localhost", timeout=0),
        lambda: MilvusStore("http://localhost", client=object()),
        lambda: ChromaStore("folder", url="http://localhost"),
        lambda: ChromaStore(url="localhost:8000"),
        lambda: ChromaStore(prefix=""),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(make):
    with pytest.raises(ConfigError):
        make()


_IN_A_CHILD = """
import os, sys, warnings
from fakes import unit
from dispatch_core import ChromaStore, StoreError
warnings.simplefilter("ignore")
store = ChromaStore(sys.argv[1])
store.clear()
child = os.fork()
if child == 0:
    try:
        store.search(unit(1, 0), scope="any", limit=1, now=0.0)
    except StoreError as error:
        os._exit(7 if "forked" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
store.close()
"""


def test_a_forked_child_is_told_to_open_a_store_of_its_own(tmp_path):
    assert in_another_process(_IN_A_CHILD, str(tmp_path / "chroma")) == "7"
