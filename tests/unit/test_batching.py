"""`BatchingEmbedder`: what waits while the embedder is busy is taken together."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fakes import FORMS, Either

from dispatch_core import BatchingEmbedder, ConfigError, EmbeddingError, HashingEmbedder
from dispatch_core.types import Matrix

PATIENCE = 60


class Gated(HashingEmbedder):
    """Embeds only when it is let; texts with "bad" in them it cannot embed."""

    def __init__(self) -> None:
        super().__init__(16)
        self.calls: list[list[str]] = []
        self.busy = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.broken = False

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        self.busy.release()
        assert self.gate.acquire(timeout=PATIENCE)
        if self.broken or any("bad" in text for text in texts):
            raise EmbeddingError(f"{self.model} cannot")
        return super().embed(texts)

    def let(self, calls: int = 1_000) -> None:
        self.gate.release(calls)

    def wait_busy(self) -> None:
        assert self.busy.acquire(timeout=PATIENCE)


@pytest.fixture
def gated() -> Iterator[Gated]:
    made = Gated()
    yield made
    made.let()


def waiting(batching: BatchingEmbedder, number: int) -> None:
    """Return when so many wait."""
    for _ in range(100_000):
        if len(batching._waiting) == number:
            return
        threading.Event().wait(0.001)
    raise AssertionError(f"{len(batching._waiting)} wait")


class Askers:
    """Threads, or tasks of loops in threads, that ask one after the other."""

    def __init__(self, batching: BatchingEmbedder, form: str) -> None:
        self.batching = batching
        self._form = form
        self._pool = ThreadPoolExecutor(32)
        self._expected = 0

    def ask(self, *texts: str):
        def work() -> Matrix:
            if self._form == "sync":
                return self.batching.embed(texts)
            return asyncio.run(self.batching.aembed(texts))

        return self._pool.submit(work)

    def queue(self, *texts: str):
        """As `ask`, and return when it waits."""
        before = len(self.batching._waiting)
        asked = self.ask(*texts)
        waiting(self.batching, before + 1)
        return asked


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def rows(*texts: str) -> Matrix:
    return HashingEmbedder(16).embed(texts)


def test_all_who_wait_are_embedded_in_the_next_call_each_text_once(gated, form):
    askers = Askers(BatchingEmbedder(gated), form)
    first = askers.ask("first")
    gated.wait_busy()
    others = [askers.queue(*texts) for texts in (["a"], ["b", "c"], ["a"], ["c", "c"])]
    gated.let()
    assert np.array_equal(first.result(PATIENCE), rows("first"))
    for asked, texts in zip(others, (["a"], ["b", "c"], ["a"], ["c", "c"]), strict=True):
        assert np.array_equal(asked.result(PATIENCE), rows(*texts))
    assert gated.calls == [["first"], ["a", "b", "c"]]


def test_nobody_waits_for_company(gated, form):
    gated.let()
    askers = Askers(BatchingEmbedder(gated), form)
    for text in ("a", "b"):
        assert np.array_equal(askers.ask(text).result(PATIENCE), rows(text))
    assert gated.calls == [["a"], ["b"]]


def test_who_asks_for_much_takes_turns(gated, form):
    askers = Askers(BatchingEmbedder(gated, max_batch=2), form)
    first = askers.ask("first")
    gated.wait_busy()
    much, little = askers.queue(*"abcde"), askers.queue("z")
    gated.let(2)
    gated.wait_busy()
    gated.wait_busy()
    gated.let()
    assert np.array_equal(much.result(PATIENCE), rows(*"abcde"))
    assert np.array_equal(little.result(PATIENCE), rows("z"))
    assert first.done()
    assert gated.calls == [["first"], ["a", "b"], ["z", "c"], ["d", "e"]]


def test_a_bad_text_fails_those_who_asked_for_it_and_nobody_else(gated, form):
    askers = Askers(BatchingEmbedder(gated), form)
    first = askers.ask("bad first")
    gated.wait_busy()
    good = [askers.queue(str(number)) for number in range(16)]
    bad = [askers.queue("bad"), askers.queue("x", "bad"), askers.queue("worse bad")]
    gated.let()
    for asked in (first, *bad):
        with pytest.raises(EmbeddingError, match="hashing-16 cannot"):
            asked.result(PATIENCE)
    for number, asked in enumerate(good):
        assert np.array_equal(asked.result(PATIENCE), rows(str(number)))


def test_every_asker_gets_an_error_of_his_own(gated, form):
    askers = Askers(BatchingEmbedder(gated), form)
    askers.ask("first")
    gated.wait_busy()
    bad = [askers.queue("bad"), askers.queue("bad")]
    gated.let()
    one, other = (asked.exception(PATIENCE) for asked in bad)
    assert one is not other
    assert one.__cause__ is other.__cause__ is not None


def test_an_embedder_that_is_down_is_not_asked_for_every_text(gated, form):
    askers = Askers(BatchingEmbedder(gated), form)
    first = askers.ask("first")
    gated.wait_busy()
    asked = [askers.queue(str(number)) for number in range(31)]
    gated.broken = True
    gated.let()
    for one in (first, *asked):
        with pytest.raises(EmbeddingError):
            one.result(PATIENCE)
    assert len(gated.calls) <= 1 + (31).bit_length() + 2


def test_a_foreign_error_is_not_quoted_and_too_few_rows_are_an_error(form):
    class Broken(HashingEmbedder):
        def embed(self, texts: Sequence[str]) -> Matrix:
            if "foreign" in texts:
                raise RuntimeError("secret")
            return super().embed(texts)[:0]

    askers = Askers(BatchingEmbedder(Broken()), form)
    with pytest.raises(EmbeddingError, match="could not be embedded"):
        askers.ask("foreign").result(PATIENCE)
    with pytest.raises(EmbeddingError, match=r"shape \(0, 256\) for 1 texts"):
        askers.ask("none").result(PATIENCE)


async def test_who_is_cancelled_disturbs_nobody_and_is_not_embedded(gated):
    batching = BatchingEmbedder(gated)
    first = asyncio.create_task(batching.aembed(["first"]))
    await asyncio.to_thread(gated.wait_busy)
    gone, stays = (asyncio.create_task(batching.aembed([text])) for text in ("gone", "stays"))
    while len(batching._waiting) < 2:
        await asyncio.sleep(0)
    for task in (first, gone):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gated.let()
    assert np.array_equal(await stays, rows("stays"))
    assert gated.calls == [["first"], ["stays"]]


def test_several_calls_may_be_under_way(gated, form):
    askers = Askers(BatchingEmbedder(gated, calls=2), form)
    asked = []
    for text in "ab":
        asked.append(askers.ask(text))
        gated.wait_busy()
    waits = askers.queue("c")
    gated.let()
    for one, text in zip((*asked, waits), "abc", strict=True):
        assert np.array_equal(one.result(PATIENCE), rows(text))


@pytest.mark.parametrize("form", FORMS)
async def test_it_says_what_it_wraps_and_passes_on_what_it_does_not_batch(form):
    batching = BatchingEmbedder(HashingEmbedder(16))
    either = Either(batching, form)
    assert (batching.model, batching.dims, batching.max_tokens) == ("hashing-16", 16, 512)
    assert (await either.fit("one two")).tokens == 2
    assert (await either.embed([])).shape == (0, 16)


@pytest.mark.parametrize("settings", [{"max_batch": 0}, {"calls": 0}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        BatchingEmbedder(HashingEmbedder(), **settings)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_batches_anew_while_the_parent_is_busy(gated):
    askers = Askers(BatchingEmbedder(gated), "sync")
    first = askers.ask("first")
    gated.wait_busy()
    waits = askers.queue("waits")
    child = os.fork()
    if child == 0:
        gated.gate = threading.Semaphore(1_000)
        right = np.array_equal(askers.batching.embed(["child"]), rows("child"))
        os._exit(0 if right and gated.calls == [["first"], ["child"]] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gated.let()
    assert np.array_equal(first.result(PATIENCE), rows("first"))
    assert np.array_equal(waits.result(PATIENCE), rows("waits"))
