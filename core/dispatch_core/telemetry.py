"""Counters of one dispatcher: what was asked, what was saved, what went wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dispatch_core import _html
from dispatch_core.errors import ConfigError
from dispatch_core.interval import clopper_pearson
from dispatch_core.types import Memory, Usage


@dataclass(frozen=True, slots=True)
class Prices:
    """What a provider takes for a million tokens. ``name`` says which model, as of when; each sum names it.

    >>> Prices("gpt-4o-mini, list of 2025-01", input=0.15, output=0.60).of(Usage(1_000_000, 500_000))
    0.45
    """

    name: str
    input: float
    output: float
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not (0 <= self.input < float("inf") and 0 <= self.output < float("inf")):
            raise ConfigError(f"prices are amounts per million tokens, got {self.input} and {self.output}")

    def of(self, usage: Usage) -> float:
        """What these tokens cost."""
        return (usage.input_tokens * self.input + usage.output_tokens * self.output) / 1_000_000


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot. ``saved`` are the tokens that hits did not buy again, ``spent`` those of answered misses.

    ``shared`` are hits too: answers of a call that another asker of the same question had under way. ``bypassed``
    questions went past the cache. Of hits that were not served but asked all the same (a shadow, a policy that checks
    itself), ``checked`` counts those whose answer came, ``checked_wrong`` those where it was another. ``rejected``
    hits were taken back. ``memory`` is what the store's entries take in this process, if the store can tell.
    """

    exact_hits: int = 0
    semantic_hits: int = 0
    misses: int = 0
    bypassed: int = 0
    stored: int = 0
    not_stored: int = 0
    failures: int = 0
    shared: int = 0
    checked: int = 0
    checked_wrong: int = 0
    rejected: int = 0
    saved: Usage = field(default_factory=Usage)
    spent: Usage = field(default_factory=Usage)
    prices: Prices | None = None
    memory: Memory | None = field(default=None, compare=False)

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

    @property
    def wrong_hits(self) -> tuple[float, float, float] | None:
        """The share of hits that are wrong, by those that were checked, and its 95 % interval; None without any."""
        if not self.checked:
            return None
        return (self.checked_wrong / self.checked, *clopper_pearson(self.checked_wrong, self.checked))

    @property
    def money_saved(self) -> float | None:
        """In the currency of ``prices``; None without."""
        return None if self.prices is None else self.prices.of(self.saved)

    def __str__(self) -> str:
        shared = f" + {self.shared} shared" if self.shared else ""
        rows = self._rows()
        more = "".join(f", {name} {rows[name]}" for name in ("wrong hits", "money saved") if name in rows)
        return (
            f"{self.lookups} lookups: {self.exact_hits} exact + {self.semantic_hits} semantic{shared} hits "
            f"({self.hit_rate:.0%}), {self.saved.total} tokens saved, {self.failures} failures{more}"
        )

    def _rows(self) -> dict[str, str | int]:
        rows: dict[str, str | int] = {
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
        if self.prices is not None:
            rows["money saved"] = f"{self.money_saved:,.2f} {self.prices.currency} ({self.prices.name})"
        if self.wrong_hits is not None:
            share, low, high = self.wrong_hits
            rows["wrong hits"] = f"{share:.1%} [{low:.1%}, {high:.1%}] of {self.checked} checked"
        if self.rejected:
            rows["rejected hits"] = self.rejected
        if self.memory is not None:
            rows["entries"] = self.memory.entries
            rows["memory per entry"] = f"{self.memory.per_entry / 1000:,.1f} kB"
        return rows

    def _repr_html_(self) -> str:
        return _html.facts(self._rows())


class Tally:
    """Thread-safe counters behind `Stats`."""

    def __init__(self, prices: Prices | None = None) -> None:
        self._lock = threading.Lock()
        self._prices = prices
        self._counts: dict[str, int] = {}
        self._saved = [0, 0]
        self._spent = [0, 0]

    def count(self, name: str, by: int = 1, *, saved: Usage | None = None, spent: Usage | None = None) -> None:
        """Add to a counter of `Stats`, and tokens to its totals."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + by
            if saved is not None:
                self._saved[0] += saved.input_tokens
                self._saved[1] += saved.output_tokens
            if spent is not None:
                self._spent[0] += spent.input_tokens
                self._spent[1] += spent.output_tokens

    def snapshot(self, memory: Memory | None = None) -> Stats:
        with self._lock:
            saved, spent = Usage(*self._saved), Usage(*self._spent)
            return Stats(**self._counts, saved=saved, spent=spent, prices=self._prices, memory=memory)
