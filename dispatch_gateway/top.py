"""``dispatcher top``: a gateway live in the terminal. Importing this needs no extra."""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from rich.console import RenderableType

ABOUT = "Watch a gateway: outcomes, savings, queue, headroom of every limit. Ctrl-C ends it."

_SHOWN = {
    *("now", "started", "state", "cache", "compression", "outcomes", "tokens"),
    *("refusals", "under_way", "waiting", "limits"),
}
_HITS = ("exact_hit", "semantic_hit", "collapsed")
_PATIENCE = 5.0
_BAR = 28
_STYLES = {"exact_hit": "green", "semantic_hit": "green", "collapsed": "cyan", "rejected": "red"}


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, between two looks."""

    requests: float = 0.0
    saved: float = 0.0
    provider: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dispatcher top`` on `parser`."""
    add = parser.add_argument
    add("url", nargs="?", default="http://127.0.0.1:8080", help="of the gateway (default: %(default)s)")
    add("--every", type=float, default=1.0, metavar="SECONDS", help="how often to look (default: %(default)s)")
    add("--once", action="store_true", help="look once and stop")


def run(options: argparse.Namespace) -> int:
    """Show it until Ctrl-C. Raises `ConfigError` if no gateway answers at first, `MissingExtra` without rich."""
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise MissingExtra("dispatcher top", "gateway") from error
    root = options.url.rstrip("/").removesuffix("/v1")
    if not root.startswith(("http://", "https://")):
        raise ConfigError(f"the URL of a gateway starts with http:// or https://, got {options.url!r}")
    seen, console = look(root), Console()
    show: Callable[[RenderableType], None] = console.print
    try:
        with ExitStack() as screen:
            # Into a file or a pipe goes one screen after another.
            if console.is_terminal and not options.once:
                live = screen.enter_context(Live(console=console, screen=True, auto_refresh=False))
                show = partial(live.update, refresh=True)
            show(shown(root, seen, Rates()))
            while not options.once:
                time.sleep(max(0.1, options.every))
                before, seen = seen, look(root)
                show(shown(root, seen, rates(before, seen)))
    except KeyboardInterrupt:
        pass
    return 0


def look(root: str) -> dict[str, Any]:
    """The status of the gateway at this URL. Raises `ConfigError`."""
    try:
        with urllib.request.urlopen(f"{root}/status", timeout=_PATIENCE) as response:
            seen: dict[str, Any] = json.load(response)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no gateway answers at {root}: {error}") from error
    if not isinstance(seen, dict) or not seen.keys() >= _SHOWN:
        raise ConfigError(f"what answers at {root} is no gateway, or one of another version")
    return seen


def rates(before: Mapping[str, Any], now: Mapping[str, Any]) -> Rates:
    seconds: float = now["now"] - before["now"]
    if seconds <= 0 or now["started"] != before["started"]:
        return Rates()

    def per_second(new: float, old: float) -> float:
        return max(0.0, new - old) / seconds

    requests = per_second(sum(now["outcomes"].values()), sum(before["outcomes"].values()))
    saved, provider = (per_second(now["tokens"][name], before["tokens"][name]) for name in ("saved", "provider"))
    return Rates(requests, saved, provider)


def shown(root: str, seen: Mapping[str, Any], rate: Rates) -> RenderableType:
    """One screen."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    hits = sum(seen["outcomes"][name] for name in _HITS)
    looked = hits + seen["outcomes"]["miss"]
    fine = seen["state"] == "ok" and "paused" not in (seen["cache"], seen["compression"])
    head = Text.assemble(
        (f" {root} ", "bold"),
        (f"{seen['state']}, cache {seen['cache']}", "green" if fine else "bold red"),
        (", compression paused" if seen["compression"] == "paused" else "", "bold red"),
        f", up {seen['now'] - seen['started']:,.0f} s",
    )
    facts = {
        "hit rate": f"{hits / looked:.1%}" if looked else "–",
        "requests/s": f"{rate.requests:,.1f}",
        "saved tokens": f"{seen['tokens']['saved']:,}  {rate.saved:,.0f}/s",
        "spent tokens": f"{seen['tokens']['provider']:,}  {rate.provider:,.0f}/s",
        "under way": f"{seen['under_way']:,}",
        "in the queue": f"{seen['waiting']:,}",
        "upstream 429s": f"{seen['refusals']:,}",
    }
    if seen["compression"] != "off":
        facts["left out of prompts"] = f"{seen['tokens']['compressed']:,}"
    cards = [Panel(value, title=name, width=26, border_style="dim") for name, value in facts.items()]
    return Group(head, Columns(cards), _outcomes(seen["outcomes"]), _limits(seen["limits"]))


def _outcomes(counts: Mapping[str, int]) -> RenderableType:
    from rich.table import Table

    table = Table(title="requests by outcome", title_justify="left", box=None, show_header=False, padding=(0, 2))
    most = max(1, *counts.values())
    for name, count in counts.items():
        style = _STYLES.get(name, "white")
        table.add_row(name.replace("_", " "), f"{count:,}", f"[{style}]{_bar(count / most)}[/]")
    return table


def _limits(limits: list[Mapping[str, Any]]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="headroom", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for one in limits:
        ratio = one["used"] / one["size"]
        style = "yellow" if ratio > 0.9 else "green"
        amount = f"{one['used']:,.0f} of {one['size']:,.0f}"
        table.add_row(
            escape(f"{one['owner']} {one['limit'].replace('_', ' ')}"), amount, f"[{style}]{_bar(ratio)}[/]"
        )
    return table


def _bar(ratio: float) -> str:
    filled = round(min(1.0, max(0.0, ratio)) * _BAR)
    return "█" * filled + "░" * (_BAR - filled)
