"""`Pipeline`: several compressors, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch_core._flow import Flow, arun, run, step
from dispatch_core.compress.layout import estimated, tokens_of
from dispatch_core.compress.settings import check_budget
from dispatch_core.errors import ConfigError
from dispatch_core.messages import Compressed, Count, Message
from dispatch_core.ports import Compressor


class Pipeline:
    """Each compressor gets what the one before left, and the same budget.

    ``Pipeline(Lossless(), Extractive(embedder), History())``: put what loses nothing first and what loses most last,
    which then finds the less to do. ``budget``, in tokens, is that of calls without one; ``count`` counts the tokens
    that are reported. Raises `ConfigError` for what is no compressor.
    """

    def __init__(self, *compressors: Compressor, budget: int | None = None, count: Count | None = None) -> None:
        if not compressors:
            raise ConfigError("a pipeline has at least one compressor")
        for one in compressors:
            if isinstance(one, type) or not isinstance(one, Compressor):
                name = one.__name__ if isinstance(one, type) else type(one).__name__
                raise ConfigError(f"a compressor has compress and acompress, got {name}")
        self._compressors = compressors
        self._budget = check_budget(budget)
        self._count = count or estimated

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """See `Compressor`."""
        return run(self._compress(messages, budget))

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return await arun(self._compress(messages, budget))

    def _compress(self, messages: Sequence[Message], budget: int | None) -> Flow[Compressed]:
        aim = check_budget(budget) or self._budget
        left, dropped = tuple(messages), list[str]()
        for one in self._compressors:
            done = yield from step(one.compress, one.acompress, left, aim)
            left = done.messages
            dropped += done.dropped
        return Compressed(left, tokens_of(messages, self._count), tokens_of(left, self._count), tuple(dropped))
