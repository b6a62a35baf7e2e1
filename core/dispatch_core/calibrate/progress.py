"""How far a long run is: a bar of rich if installed, else one line on standard error; silent for no terminal."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

Advance = Callable[[int], None]
"""Called with how much more is done."""

Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a stage of the work by its title and its total."""

_EVERY = 0.2


def progress(*, quiet: bool = False, stream: TextIO | None = None) -> Progress:
    """What a terminal can show. Nothing if ``quiet`` or if ``stream`` (standard error) is none."""
    stream = stream or sys.stderr
    if quiet or not stream.isatty():
        return silent
    return _bar if importlib.util.find_spec("rich") and stream is sys.stderr else _line(stream)


@contextmanager
def silent(title: str, total: int) -> Iterator[Advance]:
    yield lambda more: None


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda more: bar.advance(task, more)


def _line(stream: TextIO) -> Progress:
    @contextmanager
    def stage(title: str, total: int) -> Iterator[Advance]:
        done, shown = 0, 0.0

        def advance(more: int) -> None:
            nonlocal done, shown
            done += more
            now = time.monotonic()
            if now - shown >= _EVERY:
                shown = now
                print(f"\r{title}: {done:,} of {total:,} ", end="", file=stream, flush=True)

        try:
            yield advance
        finally:
            # Wiped: what remains on the terminal is the report.
            print("\r\033[K", end="", file=stream, flush=True)

    return stage
