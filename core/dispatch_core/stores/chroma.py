"""Entries in Chroma: in memory, in a folder, or on a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from dispatch_core.errors import ConfigError, MissingExtra
from dispatch_core.stores import _document as document
from dispatch_core.stores._collections import CollectionStore, collection_prefix, lengths
from dispatch_core.types import Entry, Match, Vector

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.config import Settings

# Of small graphs with Chroma's own 16 neighbours one in forty held an entry that no search could reach, for good (24
# of 1,028); with 24, 32 or 48 none did (0 of 2,706).
_GRAPH = {"space": "cosine", "ef_construction": 200, "ef_search": 256, "max_neighbors": 32}
_PAGE = 500
_NEAREST = 4
_TAGS_AT_ONCE = 200
"""Chroma's filters may nest a thousand deep, and "or" nests."""

_opening = threading.Lock()
"""Chroma counts the clients of a folder, and not safely."""


class ChromaStore(CollectionStore):
    """Give ``path``, a folder; ``url``, a server's ``"http://host:8000"``, with ``headers`` if it asks for a token;
    or a ``client``. With none of them the entries are in memory, shared by all such stores of the process while one
    is open.

    There is one collection per length of vectors, named after ``prefix``, made at the first entry, with an HNSW index
    that compares by cosine. To filter by scope and expiry Chroma looks through what is known of all entries: where
    the nearest ones are of another scope, a search takes time in proportion to them. Nothing is reported to Chroma's
    makers, and no model is loaded. The index is approximate: what it does not find is a miss.

    ``timeout`` is the deadline in seconds of each call to a server, and of waiting for other callers.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        url: str | None = None,
        client: ClientAPI | None = None,
        headers: Mapping[str, str] | None = None,
        prefix: str = "dispatch",
        timeout: float = 0.25,
    ) -> None:
        if sum(given is not None for given in (path, url, client)) > 1:
            raise ConfigError("a ChromaStore takes one of path, url and client")
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigError(f"a Chroma url is http://host:port or https://host:port, got {url!r}")
        self._collection_prefix = collection_prefix(prefix)
        self._path, self._url, self._client, self._headers = path, url, client, dict(headers or {})
        try:
            import chromadb  # noqa: F401
        except ImportError as error:
            raise MissingExtra("ChromaStore", "chroma") from error
        super().__init__("Chroma", timeout=timeout)
        if url is None:
            # Whether the folder can be had is known at once, as with any file.
            with self._using("open"):
                pass

    def _connect(self) -> _Chroma:
        if self._client is not None:
            return _Chroma(self._client, self._collection_prefix)
        from chromadb.config import Settings

        # Without TLS there is nothing to verify, and reading the certificates takes most of a second.
        plain = self._url is not None and self._url.startswith("http:")
        settings = Settings(anonymized_telemetry=False, chroma_server_ssl_verify=False if plain else None)
        with _opening:
            try:
                if self._url is not None:
                    return self._dialled(self._url, settings)
                client = self._opened(settings)
            except ValueError as error:
                if "different settings" not in str(error):
                    raise
                where = "in memory" if self._path is None else f"in {self._path}"
                raise ConfigError(f"there is a Chroma client {where} already: give it as `client`") from error
        return _Chroma(client, self._collection_prefix, closing=(client.close,))

    def _opened(self, settings: Settings) -> Any:
        import chromadb

        if self._path is None:
            return chromadb.EphemeralClient(settings=settings)
        return chromadb.PersistentClient(path=self._path, settings=settings)

    def _dialled(self, url: str, settings: Settings) -> _Chroma:
        import chromadb
        import httpx

        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 8000)
        # Chroma's own client waits for a server without an end, from its first request on.
        base = f"{parts.scheme}://{parts.hostname}:{port}"
        httpx.get(
            f"{base}/api/v2/heartbeat", headers=self._headers, timeout=self._timeout, verify=secure
        ).raise_for_status()
        client: Any = chromadb.HttpClient(
            host=str(parts.hostname), port=port, ssl=secure, headers=self._headers, settings=settings
        )
        # Nor does it close its connections, neither its own nor those of the client it asks for its tenant.
        owners = (client, getattr(client, "_admin_client", None))
        sessions = [getattr(getattr(owner, "_server", None), "_session", None) for owner in owners]
        ours = [session for session in sessions if isinstance(session, httpx.Client)]
        for session in ours:
            session.timeout = httpx.Timeout(self._timeout)
        closing = (client.close, *(session.close for session in ours))
        return _Chroma(client, self._collection_prefix, closing=closing)


class _Chroma:
    def __init__(self, client: Any, prefix: str, *, closing: tuple[Callable[[], None], ...] = ()) -> None:
        # Chroma's own types of filters and vectors are narrower than what it takes.
        self._client = client
        self._prefix = prefix
        self._closing = closing
        self._handles: dict[int, Any] = {}

    def collections(self) -> set[int]:
        names: list[str] = []
        while len(page := self._client.list_collections(limit=_PAGE, offset=len(names))) == _PAGE:
            names += [collection.name for collection in page]
        names += [collection.name for collection in page]
        there = lengths(names, self._prefix)
        # Fetched anew, for a collection that was dropped and made again has the same name.
        for dims in there:
            self._handles[dims] = self._client.get_collection(f"{self._prefix}{dims}", embedding_function=None)
        return there

    def create(self, dims: int) -> None:
        configuration: Any = {"hnsw": _GRAPH}
        self._handles[dims] = self._client.get_or_create_collection(
            f"{self._prefix}{dims}", embedding_function=None, configuration=configuration
        )

    def get(self, dims: int, id: str) -> Entry | None:
        found = self._handles[dims].get(ids=[document.name(id)], include=["metadatas"])
        return _entry(found["metadatas"][0]) if found["metadatas"] else None

    def search(self, dims: int, vector: Vector, scope: str, limit: int, now: float) -> list[Match]:
        ours = document.name(scope)
        # A filter makes Chroma read what it knows of every entry, which takes ten times as long as its search: where
        # enough of the very nearest are ours and fresh, no other entry can be nearer than they are.
        asked = limit * _NEAREST
        near = self._query(dims, vector, asked)
        # One that was deleted between the index and the row has no row.
        found = [(row, score) for row, score in near if row and row["scope"] == ours and row["expires"] > now]
        if len(found) < limit and len(near) == asked:
            where = {"$and": [{"scope": ours}, {"expires": {"$gt": now}}]}
            found = [(row, score) for row, score in self._query(dims, vector, limit, where=where) if row]
        return [Match(_entry(row), score) for row, score in found[:limit]]

    def _query(
        self, dims: int, vector: Vector, limit: int, **filters: Any
    ) -> list[tuple[Mapping[str, Any] | None, float]]:
        """What is kept of the nearest entries, and their cosines."""
        found = self._handles[dims].query(
            query_embeddings=[np.asarray(vector, dtype=np.float32)],
            n_results=limit,
            include=["metadatas", "distances"],
            **filters,
        )
        scores = (float(np.clip(1.0 - distance, -1.0, 1.0)) for distance in found["distances"][0])
        return list(zip(found["metadatas"][0], scores, strict=True))

    def put(self, dims: int, entry: Entry, vector: Vector | None) -> None:
        tags = document.tag_numbers(entry.tags)
        facts: dict[str, Any] = {
            "scope": document.name(entry.scope),
            "namespace": document.name(entry.namespace),
            "expires": document.end(entry.expires),
            "body": document.body(entry),
            # None takes away what an earlier entry of this id had; an empty list is refused.
            "tags": tags or None,
        }
        embedding = np.ones(1, np.float32) if vector is None else np.asarray(vector, dtype=np.float32)
        self._handles[dims].upsert(ids=[document.name(entry.id)], embeddings=[embedding], metadatas=[facts])

    def delete(self, dims: int, id: str) -> None:
        # Looked for first: a deletion is written down, whether there was anything or not.
        handle, key = self._handles[dims], document.name(id)
        if handle.get(ids=[key], include=[])["ids"]:
            handle.delete(ids=[key])

    def touch(self, dims: int, id: str, expires: float | None, now: float) -> bool:
        handle, key = self._handles[dims], document.name(id)
        found = handle.get(ids=[key], include=["metadatas"])
        if not found["metadatas"]:
            return False
        if float(str(found["metadatas"][0]["expires"])) > now:
            # One that was deleted meanwhile is not brought back.
            handle.update(ids=[key], metadatas=[{"expires": document.end(expires)}])
        return True

    def clear(self, dims: int, namespace: str | None, tags: frozenset[str]) -> int:
        ours: dict[str, Any] = (
            {"scope": {"$ne": ""}} if namespace is None else {"namespace": document.name(namespace)}
        )
        if not tags:
            return self._delete_where(dims, ours)
        numbers = document.tag_numbers(tags)
        removed = 0
        for start in range(0, len(numbers), _TAGS_AT_ONCE):
            carried = [{"tags": {"$contains": number}} for number in numbers[start : start + _TAGS_AT_ONCE]]
            any_of = carried[0] if len(carried) == 1 else {"$or": carried}
            removed += self._delete_where(dims, {"$and": [ours, any_of]})
        return removed

    def sweep(self, dims: int, before: float) -> None:
        self._delete_where(dims, {"expires": {"$lte": before}})

    def holds(self, dims: int, scope: str) -> bool:
        found = self._handles[dims].get(where={"scope": document.name(scope)}, limit=1, include=[])
        return bool(found["ids"])

    def close(self) -> None:
        with _opening:
            for close in self._closing:
                close()

    def _delete_where(self, dims: int, where: dict[str, Any]) -> int:
        return int(self._handles[dims].delete(where=where)["deleted"])


def _entry(facts: Mapping[str, Any]) -> Entry:
    return document.entry(facts["body"], facts["expires"])
