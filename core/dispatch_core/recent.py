"""The last hits that were served, so that one of them can be taken back."""

from __future__ import annotations

import itertools
import secrets
import threading
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
        # A ring: the number in a hit's id says where it is, and writing one place is one step for all threads.
        self._ring: list[tuple[str, Miss] | None] = [None] * _KEPT
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def remember(self, asked: Miss) -> str:
        """The id of one more hit."""
        if len(asked.query.text) > MAX_CHARS:
            # Such a text was matched exactly, by an id that is known; thousands of them would fill the memory.
            asked = replace(asked, query=replace(asked.query, text=asked.query.text[:MAX_CHARS], semantic=False))
        number = next(self._numbers)
        hit_id = f"{self._prefix}-{number}"
        self._ring[number % _KEPT] = hit_id, asked
        return hit_id

    def asked(self, hit_id: str) -> Miss | None:
        """The question of a hit; None if it is not known, or no more."""
        kept = self._ring[_place(hit_id)]
        return kept[1] if kept is not None and kept[0] == hit_id else None

    def forget(self, hit_id: str) -> bool:
        """False if somebody else was first."""
        with self._lock:
            known = self.asked(hit_id) is not None
            if known:
                self._ring[_place(hit_id)] = None
            return known


def _place(hit_id: str) -> int:
    """Where the hit is, if it is one of ours: any text may come as an id."""
    number = hit_id.rpartition("-")[2]
    return int(number) % _KEPT if number.isascii() and number.isdecimal() and len(number) < 20 else 0
