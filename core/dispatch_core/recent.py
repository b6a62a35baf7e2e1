"""The last hits that were served, so that one of them can be taken back."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import OrderedDict
from dataclasses import replace

from dispatch_core._fork import renew_in_child
from dispatch_core.eligible import MAX_CHARS
from dispatch_core.types import Miss

_KEPT = 2_048


class RecentHits:
    """Which question each of the last few thousand hits was for. Thread-safe; forgets the oldest."""

    def __init__(self) -> None:
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """Of another process's hits nothing is known here, so its ids must be none of ours: not in a forked child,
        where somebody's lock may be held for ever besides."""
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, Miss] = OrderedDict()
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def remember(self, asked: Miss) -> str:
        """The id of one more hit."""
        text = asked.query.text
        if len(text) > MAX_CHARS:
            # Such a text was matched exactly, by an id that is known; thousands of them would fill the memory.
            asked = replace(asked, query=replace(asked.query, text=text[:MAX_CHARS], semantic=False))
        hit_id = f"{self._prefix}-{next(self._numbers)}"
        with self._lock:
            self._asked[hit_id] = asked
            if len(self._asked) > _KEPT:
                self._asked.popitem(last=False)
        return hit_id

    def asked(self, hit_id: str) -> Miss | None:
        """The question of a hit; None if it is not known, or no more."""
        with self._lock:
            return self._asked.get(hit_id)

    def forget(self, hit_id: str) -> bool:
        """False if somebody else was first."""
        with self._lock:
            return self._asked.pop(hit_id, None) is not None
