"""Two threads that take turns at single instructions, in an order that the test chooses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class _Turns:
    def __init__(self, files: tuple[str, ...], stretches: list[int]) -> None:
        self._files = files
        self._stretches = stretches
        self._left = 0
        self._turn = 0
        self._ended = [False, False]
        self._changed = threading.Condition()
        self.steps = [0, 0]
        self._deal()

    def _deal(self) -> None:
        self._left = self._stretches.pop(0) if self._stretches else sys.maxsize

    def work(self, me: int, job: Callable[[], T], results: list[Any]) -> None:
        sys.settrace(lambda frame, what, _: self._entered(me, frame))
        try:
            results[me] = job()
        finally:
            sys.settrace(None)
            with self._changed:
                self._ended[me] = True
                self._turn = 1 - me
                self._changed.notify_all()

    def _entered(self, me: int, frame: Any) -> Any:
        if not frame.f_code.co_filename.endswith(self._files):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False

        def trace(frame: Any, what: str, _: Any) -> Any:
            if what == "opcode":
                self._step(me)
            return trace

        return trace

    def _step(self, me: int) -> None:
        self.steps[me] += 1
        with self._changed:
            assert self._changed.wait_for(lambda: self._turn == me or self._ended[1 - me], 60)
            if self._left == 0 and not self._ended[1 - me]:
                self._turn = 1 - me
                self._deal()
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: self._turn == me or self._ended[1 - me], 60)
            self._left -= 1


def interleaved(
    jobs: tuple[Callable[[], T], Callable[[], T]], files: tuple[str, ...], stretches: Iterable[int]
) -> tuple[list[T], int]:
    """What both returned, and how many instructions in these files the first took. The threads run by turns for as
    many instructions as ``stretches`` say, the first first; then each to its end."""
    results: list[Any] = [None, None]
    turns = _Turns(files, list(stretches))
    threads = [
        threading.Thread(target=turns.work, args=(me, job, results), daemon=True) for me, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results, turns.steps[0]
