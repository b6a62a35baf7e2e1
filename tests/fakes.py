"""Doubles and small values that several suites share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from dispatch_core import Cost, Entry, Feedback, Fit, HashingEmbedder, Match, MemoryStore, Usage
from dispatch_core.keys import digest
from dispatch_core.stores._twins import SyncStore
from dispatch_core.types import Matrix, Vector

FORMS = ["sync", "async"]


class Either:
    """Calls ``target.get`` or awaits ``target.aget``: ``await either.get(...)`` is written once for both forms."""

    def __init__(self, target: Any, form: str) -> None:
        self.target = target
        self.form = form

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        plain, awaited = getattr(self.target, name), getattr(self.target, f"a{name}")

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await awaited(*args, **kwargs) if self.form == "async" else plain(*args, **kwargs)

        return call


class Clock:
    """Time that moves when it is told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def unit(*numbers: float) -> Vector:
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def made(
    name: str,
    *,
    scope: str = "scope",
    namespace: str = "ours",
    text: str = "text",
    payload: bytes = b"payload",
    expires: float | None = None,
    tags: Iterable[str] = (),
) -> Entry:
    """An entry whose id is the digest of its name."""
    fixed = {"usage": Usage(3, 4), "created": 1_000.25, "tags": tuple(sorted(set(tags)))}
    return Entry(digest(name), digest(namespace), digest(scope), text, payload, expires=expires, **fixed)


class CountingEmbedder(HashingEmbedder):
    """Remembers every list of texts it was asked to embed; fails or answers nonsense when told to."""

    def __init__(self, dims: int = 256) -> None:
        super().__init__(dims)
        self.calls: list[list[str]] = []
        self.fitted: list[str] = []
        self.error: Exception | None = None
        self.answer: Matrix | None = None

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        if self.error is not None:
            raise self.error
        return super().embed(texts) if self.answer is None else self.answer

    def fit(self, text: str) -> Fit:
        self.fitted.append(text)
        return super().fit(text)


class FlakyStore(SyncStore):
    """A store elsewhere, that raises ``error``, if there is one, in every call named in ``breaks``."""

    def __init__(self) -> None:
        self._kept = MemoryStore()
        self.error: Exception | None = None
        self.breaks = {"get", "search", "put", "delete", "touch", "clear"}
        self.asked = 0

    def __len__(self) -> int:
        return len(self._kept)

    def _work(self, name: str) -> MemoryStore:
        self.asked += 1
        if self.error is not None and name in self.breaks:
            raise self.error
        return self._kept

    def get(self, id: str, *, now: float) -> Entry | None:
        return self._work("get").get(id, now=now)

    def search(self, vector: Vector, *, scope: str, limit: int, now: float) -> Sequence[Match]:
        return self._work("search").search(vector, scope=scope, limit=limit, now=now)

    def put(self, entry: Entry, vector: Vector | None) -> None:
        self._work("put").put(entry, vector)

    def delete(self, id: str) -> None:
        self._work("delete").delete(id)

    def touch(self, id: str, *, expires: float | None, now: float) -> None:
        self._work("touch").touch(id, expires=expires, now=now)

    def clear(self, namespace: str | None = None, *, tags: Collection[str] = ()) -> int:
        return self._work("clear").clear(namespace, tags=tags)

    def close(self) -> None:
        pass


class FakeReservation:
    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.fate: list[Any] = []

    def settle(self, usage: Usage | None = None, headers: object = None, *, first_token: object = None) -> None:
        self.fate.append(("settled", usage))

    def cancel(self) -> None:
        self.fate.append("cancelled")


class FakeLimiter:
    """Admits everything, or raises ``error``; keeps the reservations it gave."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.given: list[FakeReservation] = []
        self.timeouts: list[float | None] = []

    def estimate(self, text: str, *, max_tokens: int | None = None, model: str = "") -> Cost:
        return Cost(len(text), max_tokens or 0, model)

    def acquire(self, cost: Cost, *, timeout: float | None = None) -> FakeReservation:
        self.timeouts.append(timeout)
        if self.error is not None:
            raise self.error
        self.given.append(FakeReservation(cost))
        return self.given[-1]

    async def aacquire(self, cost: Cost, *, timeout: float | None = None) -> FakeReservation:
        return self.acquire(cost, timeout=timeout)

    def observe(self, feedback: Feedback, reservation: object = None) -> None:
        pass


def in_another_process(code: str, *args: str) -> str:
    """Run Python code with the same import path and return what it printed; its failure fails the test."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
