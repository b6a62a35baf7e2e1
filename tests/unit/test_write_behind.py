"""Writes that the answer does not wait for."""

from __future__ import annotations

import threading

import pytest
from fakes import in_another_process

from dispatch_core.write_behind import WriteBehind


@pytest.fixture
def gate():
    """A job that waits until the test lets it go on."""
    event = threading.Event()
    yield event
    event.set()


def test_jobs_run_in_order_in_another_thread():
    writer, done = WriteBehind(), []
    for number in range(100):
        writer.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    assert writer.flush()
    assert [number for number, _ in done] == list(range(100))
    assert {name for _, name in done} == {"dispatch-write"}
    assert writer.pending == 0


def test_a_full_queue_makes_the_caller_do_its_own_job(gate):
    writer, done = WriteBehind(capacity=1), []
    started = threading.Event()
    writer.submit(lambda: (started.set(), gate.wait()))
    started.wait()
    writer.submit(lambda: done.append("queued"))
    writer.submit(lambda: done.append(threading.current_thread() is threading.main_thread()))
    assert done == [True]
    gate.set()
    assert writer.flush()
    assert done == [True, "queued"]


async def test_a_flush_that_takes_too_long_says_so(gate):
    writer = WriteBehind()
    writer.submit(gate.wait)
    assert writer.flush(0) is False
    assert await writer.aflush(0) is False
    assert writer.pending == 1
    gate.set()
    assert await writer.aflush() is True


def test_nothing_to_write_is_written_at_once():
    assert WriteBehind().flush(0) is True


@pytest.mark.parametrize("error", [ValueError("a job"), SystemExit(1)])
def test_a_job_that_fails_does_not_stop_the_next(monkeypatch, error):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda report: reported.append(report.exc_value))
    writer, done = WriteBehind(), []

    def fail():
        raise error

    for job in (fail, lambda: done.append(1), fail, lambda: done.append(2), fail):
        writer.submit(job)
    assert writer.flush()
    assert done == [1, 2]
    writer.submit(lambda: done.append(3))
    assert writer.flush()
    assert done == [1, 2, 3]


def test_a_system_without_another_thread_makes_the_caller_do_its_own_job(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer, done = WriteBehind(), []
    for number in range(3):
        writer.submit(lambda number=number: done.append(number))
    assert done == [0, 1, 2]
    assert writer.flush(0)


def test_what_is_queued_at_exit_is_still_written():
    code = """
import time
from dispatch_core.write_behind import WriteBehind
writer = WriteBehind()
for number in range(3):
    writer.submit(lambda number=number: (time.sleep(0.01), print(number, flush=True)))
"""
    assert in_another_process(code).split() == ["0", "1", "2"]


def test_a_forked_child_leaves_the_parents_jobs_to_the_parent():
    code = """
import os, threading
from dispatch_core.write_behind import WriteBehind
writer, gate = WriteBehind(), threading.Event()
writer.submit(gate.wait)
writer.submit(lambda: print("parent", flush=True))
child = os.fork()
if child == 0:
    assert writer.flush(0)
    writer.submit(lambda: print("child", flush=True))
    assert writer.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
gate.set()
assert writer.flush()
"""
    assert in_another_process(code).split() == ["child", "parent"]
