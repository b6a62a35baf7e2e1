"""A compressor at work: what it cannot do is left as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dispatch_core._flow import Flow, step
from dispatch_core.errors import ConfigError
from dispatch_core.failopen import FailOpen
from dispatch_core.messages import Message
from dispatch_core.ports import Compressor
from dispatch_core.telemetry import Tally


class Careful:
    """Fails open: a compressor that raises is logged once per change of state, and left alone for a while.

    Two are equal that have the same compressor. ``clock`` returns monotonic seconds. Raises `ConfigError` for what is
    no compressor.
    """

    def __init__(self, compressor: Compressor, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not all(callable(getattr(compressor, name, None)) for name in ("compress", "acompress")):
            raise ConfigError(f"compressor is a Compressor, got {type(compressor).__name__}")
        self.compressor = compressor
        self._failing = FailOpen(Tally(), enabled=True, clock=clock, part="the compressor")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Careful) and other.compressor is self.compressor

    def __hash__(self) -> int:
        return id(self.compressor)

    def shortened(self, messages: Sequence[Message]) -> Flow[tuple[Message, ...]]:
        """The messages as the compressor leaves them; as they are, if it fails."""
        compressor, whole = self.compressor, tuple(messages)
        done = yield from self._failing.safely(step(compressor.compress, compressor.acompress, whole), None)
        return whole if done is None or not done.messages else done.messages
