"""Counters of one dispatcher: what was asked, what was saved, what went wrong."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from html import escape

from dispatch_core.types import Usage


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot. ``saved`` are the tokens that hits did not buy again, ``spent`` those of answered misses.

    ``shared`` are hits too: answers of a call that another asker of the same question had under way.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    misses: int = 0
    bypassed: int = 0
    stored: int = 0
    not_stored: int = 0
    failures: int = 0
    shared: int = 0
    saved: Usage = field(default_factory=Usage)
    spent: Usage = field(default_factory=Usage)

    @property
    def hits(self) -> int:
        return self.exact_hits + self.semantic_hits + self.shared

    @property
    def lookups(self) -> int:
        return self.hits + self.misses

    @property
    def hit_rate(self) -> float:
        """Hits per lookup, in [0, 1]."""
        return self.hits / self.lookups if self.lookups else 0.0

    def __str__(self) -> str:
        shared = f" + {self.shared} shared" if self.shared else ""
        return (
            f"{self.lookups} lookups: {self.exact_hits} exact + {self.semantic_hits} semantic{shared} hits "
            f"({self.hit_rate:.0%}), {self.saved.total} tokens saved, {self.failures} failures"
        )

    def _repr_html_(self) -> str:
        rows = {
            "lookups": self.lookups,
            "exact hits": self.exact_hits,
            "semantic hits": self.semantic_hits,
            **({"shared answers": self.shared} if self.shared else {}),
            "hit rate": f"{self.hit_rate:.1%}",
            "tokens saved": self.saved.total,
            "tokens spent": self.spent.total,
            "bypassed": self.bypassed,
            "failures": self.failures,
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table>{cells}</table>"


class Tally:
    """Thread-safe counters behind `Stats`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._saved = Usage()
        self._spent = Usage()

    def count(self, name: str, by: int = 1, *, saved: Usage | None = None, spent: Usage | None = None) -> None:
        """Add to a counter of `Stats`, and tokens to its totals."""
        with self._lock:
            self._counts[name] += by
            if saved is not None:
                self._saved += saved
            if spent is not None:
                self._spent += spent

    def snapshot(self) -> Stats:
        with self._lock:
            return Stats(**self._counts, saved=self._saved, spent=self._spent)
