"""Take together what waits while the embedder is busy: 64 texts at once take an encoder less than 64 times one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import islice

import numpy as np

from dispatch_core._fork import renew_in_child
from dispatch_core.errors import ConfigError, EmbeddingError
from dispatch_core.ports import Embedder
from dispatch_core.types import Fit, Matrix, Vector


class _Ask:
    """Somebody's texts, the rows that are there already, and the promise of all of them."""

    __slots__ = ("future", "rows", "texts", "todo")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.future: Future[Matrix] = Future()
        self.todo = dict.fromkeys(texts)
        self.rows: dict[str, Vector] = {}

    def take(self, outcomes: Mapping[str, Vector | BaseException]) -> None:
        """What came of its texts, of those that were asked."""
        for text in [text for text in self.todo if text in outcomes]:
            outcome = outcomes[text]
            if isinstance(outcome, BaseException):
                self.fail(outcome)
                return
            self.rows[text] = outcome
            del self.todo[text]
        if not self.todo and self.future.set_running_or_notify_cancel():
            self.future.set_result(np.stack([self.rows[text] for text in self.texts]))

    def fail(self, error: BaseException) -> None:
        self.todo.clear()
        if self.future.set_running_or_notify_cancel():
            # One of its own for each: a traceback grows with every thread and task that raises it.
            ours = EmbeddingError(
                str(error) if isinstance(error, EmbeddingError) else "the batch could not be embedded"
            )
            ours.__cause__ = error
            self.future.set_exception(ours)


class BatchingEmbedder:
    """Embeds for many askers at once, threads and tasks of any event loop: whoever comes while the wrapped embedder
    is busy waits, and all who wait are embedded in its next call. Nobody waits for company.

    One call has at most ``max_batch`` different texts; who asks for more takes turns with the others. At most
    ``calls`` are under way at once, each in a thread: one for a model that has the processor or the GPU to itself,
    several for a remote one. A text that cannot be embedded fails those who asked for it and nobody else: the batch
    is tried again in halves, unless every part of it fails.

    For torch and for remote models; an encoder that gains little from batches is better off without.
    """

    def __init__(self, wrapped: Embedder, *, max_batch: int = 64, calls: int = 1) -> None:
        for name, value in (("max_batch", max_batch), ("calls", calls)):
            if value < 1:
                raise ConfigError(f"{name} is at least 1, got {value}")
        self.wrapped = wrapped
        self._max_batch = max_batch
        self._calls = calls
        self.start_anew()
        renew_in_child(self)

    def start_anew(self) -> None:
        """Those who wait in the parent are served there, by its threads."""
        self._lock = threading.Lock()
        self._waiting: deque[_Ask] = deque()
        self._under_way = 0
        self.__dict__.pop("_workers", None)

    @property
    def model(self) -> str:
        return self.wrapped.model

    @property
    def dims(self) -> int:
        return self.wrapped.dims

    @property
    def max_tokens(self) -> int:
        return self.wrapped.max_tokens

    def embed(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return self.wrapped.embed(texts)
        future = self._asked(texts)
        try:
            return future.result()
        finally:
            # Interrupted, it is not to be embedded any more.
            future.cancel()

    async def aembed(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return await self.wrapped.aembed(texts)
        return await asyncio.wrap_future(self._asked(texts))

    def fit(self, text: str) -> Fit:
        return self.wrapped.fit(text)

    async def afit(self, text: str) -> Fit:
        return await self.wrapped.afit(text)

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self._calls, thread_name_prefix="dispatch-batch")

    def _asked(self, texts: Sequence[str]) -> Future[Matrix]:
        ask = _Ask(list(texts))
        with self._lock:
            self._waiting.append(ask)
            if self._under_way < self._calls:
                self._workers.submit(self._work)
                self._under_way += 1
        return ask.future

    def _work(self) -> None:
        """Embed until nobody waits."""
        while batch := self._next():
            asks, texts = batch
            outcomes = _outcomes(self.wrapped, texts)
            for ask in asks:
                ask.take(outcomes)
            with self._lock:
                # Who has more than fits into one batch goes behind those who came meanwhile.
                self._waiting += [ask for ask in asks if ask.todo]

    def _next(self) -> tuple[list[_Ask], list[str]] | None:
        """Whose turn it is, and their different texts; None, and this thread is no longer under way, if nobody's."""
        with self._lock:
            asks: list[_Ask] = []
            texts: dict[str, None] = {}
            while self._waiting and len(texts) < self._max_batch:
                ask = self._waiting.popleft()
                if ask.future.cancelled():
                    continue
                asks.append(ask)
                texts.update(dict.fromkeys(islice(ask.todo, self._max_batch - len(texts))))
            if not asks:
                self._under_way -= 1
                return None
            return asks, list(texts)


def _outcomes(embedder: Embedder, texts: list[str]) -> dict[str, Vector | BaseException]:
    """A vector or an error for each text. After a failure the halves are tried, and theirs: so one bad text is found
    in a few calls. When as many in a row have failed as lead down to one text and its neighbour, it is not the texts.
    """
    outcomes: dict[str, Vector | BaseException] = {}
    parts, failures = [texts], 0
    while parts:
        part = parts.pop()
        try:
            outcomes.update(zip(part, _rows(embedder, part), strict=True))
            failures = 0
        except BaseException as error:
            failures += 1
            if failures > len(texts).bit_length() + 1:
                parts.append(part)
                return {**outcomes, **{text: error for unknown in parts for text in unknown}}
            if len(part) == 1:
                outcomes[part[0]] = error
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
    return outcomes


def _rows(embedder: Embedder, texts: list[str]) -> Matrix:
    rows = embedder.embed(texts)
    if rows.shape != (len(texts), embedder.dims):
        raise EmbeddingError(f"{embedder.model} returned rows of shape {rows.shape} for {len(texts)} texts")
    return rows
