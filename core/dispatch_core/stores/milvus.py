"""Entries in Milvus: a cluster, or a file that Milvus Lite keeps inside this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dispatch_core.errors import ConfigError, MissingExtra, StoreError
from dispatch_core.stores import _document as document
from dispatch_core.stores._collections import NO_VECTOR, CollectionStore, collection_prefix, lengths
from dispatch_core.stores._milvus_file import LiteFile
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_SETUP = 30.0
"""Seconds that making or loading a collection may take, which happens once and not within a lookup's deadline."""

_PIECE, _PIECES = 65_535, 4_096
"""Milvus' bounds: characters in a VARCHAR, elements in an ARRAY."""

_NAME_LENGTH = 129
_MOST_RESULTS = 16_384
_EF = 128
_FLUSH_EVERY = 128


class MilvusStore(CollectionStore):
    """Give ``uri``, ``"file.db"`` or ``"http://host:19530"`` with a ``token`` if it asks for one, or a ``client``.

    There is one collection per length of vectors, named after ``prefix``, made at the first entry; the scope is its
    partition key and its HNSW index compares by cosine. One's own writes are found at once, those of other processes
    as soon as the cluster has taken them in (consistency "Session"). A server before Milvus 2.6 writes rows as a
    whole: there a `touch` may undo what another process puts in the milliseconds that it takes. An entry larger than
    Milvus takes, 64 MB unless the cluster is set otherwise, is refused with `StoreError` and not stored.

    A file belongs to one process at a time: while another has it, `StoreError` is raised at once. Stores of one
    process may share it; a `MilvusClient` of one's own on the same file must be given as ``client``. It is searched
    exactly and by one caller at a time, for Milvus Lite takes no writes at once, in a time that grows with the
    number of entries: a file is for thousands of them.

    ``timeout`` is the deadline of a call in seconds; what makes or loads a collection may take 30 s.
    """

    def __init__(
        self,
        uri: str | Path | None = None,
        *,
        client: MilvusClient | None = None,
        token: str | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
    ) -> None:
        if (uri is None) == (client is None):
            raise ConfigError("a MilvusStore takes a uri or a client, and not both")
        self._collection_prefix = collection_prefix(prefix)
        self._uri, self._client, self._token = str(uri), client, token
        try:
            import pymilvus  # noqa: F401
        except ImportError as error:
            raise MissingExtra("MilvusStore", "milvus") from error
        self._file = LiteFile.at(self._uri) if client is None else LiteFile.behind(client)
        super().__init__("Milvus", timeout=timeout, lock=self._file.lock if self._file else None)
        if self._file is not None:
            # Whether the file can be had is known at once, as with any file.
            with self._using("open its file"):
                pass

    def _connect(self) -> _Milvus:
        lite = self._file is not None
        if self._client is not None:
            return _Milvus(self._client, self._collection_prefix, self._timeout, lite=lite)
        if self._file is None:
            client = self._dial(self._uri)
            return _Milvus(client, self._collection_prefix, self._timeout, lite=lite, closing=(client.close,))
        uri = self._file.open()
        try:
            client = self._dial(uri)
        except BaseException:
            self._file.close()
            raise
        closing = (client.close, self._file.close)
        return _Milvus(client, self._collection_prefix, self._timeout, lite=lite, closing=closing)

    def _dial(self, uri: str) -> MilvusClient:
        from pymilvus import MilvusClient

        settings: dict[str, Any] = {"timeout": self._timeout}
        if self._file is not None:
            # Its server is in this process, which may be busy; and it hangs up on who asks too often if it is alive.
            settings = {"timeout": _SETUP, "grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}}
        # A connection that nobody else closes.
        return MilvusClient(uri=uri, token=self._token or "", dedicated=True, **settings)


class _Milvus:
    def __init__(
        self,
        client: MilvusClient,
        prefix: str,
        timeout: float,
        *,
        lite: bool,
        closing: tuple[Callable[[], None], ...] = (),
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._call = {"timeout": timeout, "consistency_level": "Session"}
        self._lite = lite
        # Lite cannot write a part of a row, nor need it: no other process is there.
        self._in_part = not lite
        self._closing = closing
        self._loaded: set[int] = set()
        self._unflushed = 0

    def collections(self) -> set[int]:
        there = lengths(self._client.list_collections(timeout=self._call["timeout"]), self._prefix)
        for dims in there - self._loaded:
            self._load(dims)
        self._loaded &= there
        return there

    def create(self, dims: int) -> None:
        name = self._name(dims)
        if self._client.has_collection(name, timeout=_SETUP):
            self._load(dims)
            return
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_NAME_LENGTH)
        # Lite would write and search sixteen files instead of one.
        schema.add_field("scope", DataType.VARCHAR, max_length=_NAME_LENGTH, is_partition_key=not self._lite)
        schema.add_field("namespace", DataType.VARCHAR, max_length=_NAME_LENGTH)
        schema.add_field("expires", DataType.DOUBLE)
        schema.add_field("tags", DataType.ARRAY, element_type=DataType.INT64, max_capacity=_PIECES)
        schema.add_field(
            "body", DataType.ARRAY, element_type=DataType.VARCHAR, max_length=_PIECE, max_capacity=_PIECES
        )
        # No collection is without vectors, and some servers want two dimensions.
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dims or 2)
        index = self._client.prepare_index_params()
        if self._lite:
            # Exact, and no slower: its time goes into Python's work for each row, whatever the index.
            index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        else:
            graph = {"M": 16, "efConstruction": 200}
            index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=graph)
        self._client.create_collection(name, schema=schema, timeout=_SETUP, consistency_level="Session")
        self._client.create_index(name, index, timeout=_SETUP, _async=self._lite)
        self._load(dims)

    def get(self, dims: int, id: str) -> Entry | None:
        row = self._row(dims, id, "expires", "body")
        return None if row is None else _entry(row)

    def search(self, dims: int, vector: Vector, scope: str, limit: int, now: float) -> list[Match]:
        limit = min(limit, _MOST_RESULTS)
        [found] = self._client.search(
            self._name(dims),
            data=[np.asarray(vector, dtype=np.float32)],
            anns_field="vector",
            filter=f'scope == "{document.name(scope)}" and expires > {now!r}',
            limit=limit,
            output_fields=["expires", "body"],
            search_params={"metric_type": "COSINE", "params": {"ef": max(_EF, limit)}},
            **self._call,
        )
        scored = [(_entry(hit["entity"]), float(np.clip(hit["distance"], -1.0, 1.0))) for hit in found]
        return [Match(entry, score) for entry, score in scored]

    def put(self, dims: int, entry: Entry, vector: Vector | None) -> None:
        body, tags = document.body(entry), document.tag_numbers(entry.tags)
        if len(body) > _PIECE * _PIECES or len(tags) > _PIECES:
            raise StoreError(f"an entry of {len(body)} characters and {len(tags)} tags is more than Milvus keeps")
        row = {
            "id": document.name(entry.id),
            "scope": document.name(entry.scope),
            "namespace": document.name(entry.namespace),
            "expires": document.end(entry.expires),
            "tags": tags,
            "body": [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)],
            "vector": [1.0, 0.0] if vector is None else np.asarray(vector, dtype=np.float32),
        }
        self._upsert(dims, row)

    def delete(self, dims: int, id: str) -> None:
        # Looked for first: each deletion leaves a mark in the collection, whether there was anything or not.
        if self._row(dims, id, "id") is not None:
            self._client.delete(self._name(dims), ids=[document.name(id)], timeout=self._call["timeout"])

    def touch(self, dims: int, id: str, expires: float | None, now: float) -> bool:
        row = self._row(dims, id, "expires" if self._in_part else "*")
        if row is None:
            return False
        if row["expires"] > now:
            part = {"id": document.name(id), "expires": document.end(expires)}
            if self._in_part:
                self._write_part(dims, id, part)
            else:
                self._upsert(dims, row | part)
        return True

    def clear(self, dims: int, namespace: str | None, tags: frozenset[str]) -> int:
        wanted = ['id != ""'] if namespace is None else [f'namespace == "{document.name(namespace)}"']
        if tags:
            wanted.append(f"array_contains_any(tags, {document.tag_numbers(tags)})")
        return self._delete_where(dims, " and ".join(wanted))

    def sweep(self, dims: int, before: float) -> None:
        self._delete_where(dims, f"expires <= {before!r}")

    def holds(self, dims: int, scope: str) -> bool:
        where = f'scope == "{document.name(scope)}"'
        return bool(self._client.query(self._name(dims), filter=where, output_fields=["id"], limit=1, **self._call))

    def close(self) -> None:
        for close in self._closing:
            close()

    def _load(self, dims: int) -> None:
        # Lite is loaded when the call returns; to wait would be to poll it twice a second.
        self._client.load_collection(self._name(dims), timeout=_SETUP, _async=self._lite)
        self._loaded.add(dims)

    def _name(self, dims: int) -> str:
        return f"{self._prefix}{dims}"

    def _row(self, dims: int, id: str, *fields: str) -> dict[str, Any] | None:
        rows = self._client.get(self._name(dims), ids=[document.name(id)], output_fields=list(fields), **self._call)
        return dict(rows[0]) if rows else None

    def _upsert(self, dims: int, row: dict[str, Any]) -> None:
        self._client.upsert(self._name(dims), [row], timeout=self._call["timeout"])
        self._unflushed += 1
        if self._lite and self._unflushed >= _FLUSH_EVERY:
            # Lite flushes by itself at 128 MB; until then it converts every unflushed row anew in every search.
            self._unflushed = 0
            for written in self._loaded - {NO_VECTOR}:
                self._client.flush(self._name(written), timeout=_SETUP)

    def _write_part(self, dims: int, id: str, part: dict[str, Any]) -> None:
        from pymilvus.exceptions import MilvusException

        try:
            # The server adds the rest: what another process has put meanwhile stays.
            self._client.upsert(self._name(dims), [part], timeout=self._call["timeout"], partial_update=True)
        except MilvusException as error:
            # What the server answered is its own cause, or has none; else it did not answer.
            if error.__cause__ not in (None, error):
                raise
            # The row has left, or the server cannot; then it takes rows as a whole.
            row = self._row(dims, id, "*")
            if row is not None:
                self._upsert(dims, row | part)
                self._in_part = False

    def _delete_where(self, dims: int, condition: str) -> int:
        """How many that were: Lite answers with their ids, a server with their number."""
        gone = self._client.delete(self._name(dims), filter=condition, timeout=_SETUP)
        return len(gone) if isinstance(gone, list) else int(gone.get("delete_count", 0))


def _entry(row: Any) -> Entry:
    return document.entry("".join(row["body"]), row["expires"])
