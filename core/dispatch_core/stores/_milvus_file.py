"""Files of Milvus Lite: one process each, one server inside it for all stores of the process."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.errors import ConfigError, MissingExtra, StoreError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_SUFFIX = ".db"
_guard = threading.Lock()
_files: dict[str, LiteFile] = {}
_of_clients: weakref.WeakKeyDictionary[MilvusClient, LiteFile] = weakref.WeakKeyDictionary()


class LiteFile:
    """The file's lock and how many stores of this process have it open.

    Milvus Lite serves a file through a server of its own in threads of this process. That takes no two writes at
    once, and a search beside its flush misses what is being flushed: every call takes ``lock``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._users = 0

    @classmethod
    def at(cls, uri: str) -> LiteFile | None:
        """The file that a URI names; None for a server's. Raises `ConfigError` for what is neither."""
        if "://" in uri or uri.startswith("unix:"):
            return None
        if not uri.endswith(_SUFFIX):
            raise ConfigError(f"a Milvus uri is a file that ends in {_SUFFIX} or http(s)://host:port, got {uri!r}")
        path = os.path.realpath(uri)
        with _guard:
            return _files.setdefault(path, cls(path))

    @classmethod
    def behind(cls, client: MilvusClient) -> LiteFile | None:
        """The file that a client of the caller's is connected to, who opens and closes it; None for a server."""
        if "lite" not in client.get_server_version():
            return None
        with _guard:
            return _of_clients.setdefault(client, cls(""))

    def open(self) -> str:
        """The URI of the server; raises `StoreError` if another process has the file."""
        try:
            from milvus_lite.server_manager import server_manager_instance as servers
        except ImportError as error:
            raise MissingExtra("A Milvus file", "milvus") from error
        if not Path(self.path).parent.is_dir():
            raise StoreError(f"Milvus could not open {self.path}: there is no such folder")
        with _guard:
            uri = servers.start_and_get_uri(self.path)
            if uri is None:
                raise StoreError(
                    f"Milvus could not open {self.path}: another process has it (Milvus Lite allows one at a time), "
                    "or it is no Milvus Lite folder"
                )
            self._users += 1
        return str(uri)

    def close(self) -> None:
        """Once nobody uses it here, other processes may have it."""
        from milvus_lite.server_manager import server_manager_instance as servers

        with _guard:
            self._users -= 1
            if self._users == 0:
                servers.release_server(self.path)
