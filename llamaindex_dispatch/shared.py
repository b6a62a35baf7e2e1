"""Caches and limiters survive pickling by identity: within one process they are found again, never copied."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary, ref

T = TypeVar("T")

_log = logging.getLogger("llamaindex_dispatch")


class Attached(Generic[T]):
    """A value for each object, as long as the object lives. By identity: the objects need not be hashable.

    Without a lock: its dictionary operations are atomic, and a finaliser may call it at any point.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[int, tuple[ref[Any], T]] = {}

    def of(self, owner: Any) -> T:
        key = id(owner)
        known = self._values.get(key)
        if known is None or known[0]() is not owner:
            made = ref(owner, partial(self._forget, key)), self._make()
            known = self._values.setdefault(key, made)
            if known[0]() is not owner:
                # The address of an object that died, reused before its end was heard of.
                self._values[key] = known = made
        return known[1]

    def _forget(self, key: int, dead: ref[Any]) -> None:
        known = self._values.get(key)
        if known is not None and known[0] is dead:
            self._values.pop(key, None)


_names: Attached[str] = Attached(lambda: uuid.uuid4().hex)
_alive: WeakValueDictionary[str, Any] = WeakValueDictionary()


def handle(shared: Any) -> str | None:
    """A name under which `found` gives back this very object, as long as it lives. No other ever gets it."""
    if shared is None:
        return None
    name = _names.of(shared)
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
