"""What holds locks and connections is shared by all copies of a model, and never copied itself."""

from __future__ import annotations

import logging
import uuid
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T", bound="Shared")

_log = logging.getLogger("langchain_dispatch")
_alive: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Shared:
    """A deep copy is the object itself; an unpickled one is, too, in the process that made it, and None elsewhere."""

    _handle = ""

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        self._handle = self._handle or uuid.uuid4().hex
        _alive[self._handle] = self
        return found, (self._handle,)


def found(handle: str) -> Any:
    """The object of a handle; None, with a warning in the log, in a process that does not have it."""
    shared = _alive.get(handle)
    if shared is None:
        _log.warning("an unpickled model lost its cache or limiter: they belong to the process that made them")
    return shared
