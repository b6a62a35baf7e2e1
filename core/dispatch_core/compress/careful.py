"""A compressor at work: what it cannot do is left as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dispatch_core._flow import Flow, step
from dispatch_core.errors import CompressionError, ConfigError
from dispatch_core.failopen import FailOpen
from dispatch_core.messages import Compressed, Message
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

    @property
    def paused(self) -> bool:
        """The compressor failed too often and is left alone for a while."""
        return self._failing.paused

    def shortened(self, messages: Sequence[Message]) -> Flow[tuple[Message, ...]]:
        """The messages as the compressor leaves them; as they are, if it fails."""
        whole = tuple(messages)
        done = yield from self._failing.safely(self._checked(whole), None)
        return done or whole

    def _checked(self, whole: tuple[Message, ...]) -> Flow[tuple[Message, ...]]:
        done = yield from step(self.compressor.compress, self.compressor.acompress, whole)
        parts = {id(message.source): len(message.parts) for message in whole}
        messages = done.messages if isinstance(done, Compressed) else None
        if not isinstance(messages, tuple) or any(len(one.parts) != parts.get(id(one.source), 1) for one in messages):
            # A front could not find its own messages again.
            raise CompressionError(f"{type(self.compressor).__name__} gave back no Compressed of the same parts")
        return messages
