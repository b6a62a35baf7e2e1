"""Caches and limiters survive pickling by identity: within one process they are found again, never copied."""

from __future__ import annotations

import logging
import uuid
from typing import Any
from weakref import WeakValueDictionary

_PROCESS = uuid.uuid4().hex
_alive: WeakValueDictionary[str, Any] = WeakValueDictionary()

_log = logging.getLogger("llamaindex_dispatch")


def handle(shared: Any) -> str | None:
    """A name under which `found` gives back this very object, as long as it lives."""
    if shared is None:
        return None
    name = f"{_PROCESS}:{id(shared)}"
    _alive[name] = shared
    return name


def found(name: str | None) -> Any:
    """The object of a handle; None, with a warning in the log, in a process that does not have it."""
    if name is None:
        return None
    shared = _alive.get(name)
    if shared is None:
        _log.warning("an unpickled DispatchLLM lost its cache or limiter: they belong to the process that made them")
    return shared
