"""Objects that a forked child must renew: it has their state, but neither their threads nor the owners of locks."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    def start_anew(self) -> None:
        """Called in the child, before anything else runs there."""
        ...


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()


def renew_in_child(thing: Forkable) -> None:
    """Have ``thing.start_anew()`` called in every forked child, as long as the thing lives."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
