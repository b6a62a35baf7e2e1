"""Leases among real processes that share a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from flights import World
from leasing import LeasingFile

ASKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from flights import World
from leasing import LeasingFile

world = World(store=LeasingFile(Path(sys.argv[1])), lease=60.0)
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(100) as threads:
    answers = list(threads.map(lambda _: world.ask(), range(100)))
world.dispatcher.close()
print(world.calls, len(answers), *{answer.decode() for answer in answers}, world.dispatcher.stats().failures)
"""
HOLDS = """
import sys
from pathlib import Path
from flights import QUERY, World
from leasing import LeasingFile

world = World(store=LeasingFile(Path(sys.argv[1])), lease=float(sys.argv[2]))
ticket = world.dispatcher.begin(QUERY)
print("holds", flush=True)
if sys.stdin.readline():
    world.dispatcher.abort(ticket)
    world.dispatcher.close()
"""


def started(code: str, *args: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() in ("ready", "holds")
    return process


def test_of_two_processes_with_a_hundred_askers_each_one_asks(tmp_path: Path):
    processes = [started(ASKS, tmp_path / "shared.db") for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(calls for calls, *_ in said) == ["0", "1"]
    assert [rest for _, *rest in said] == [["100", "answer", "0"]] * 2


def test_a_process_that_is_killed_holds_nobody_up_for_longer_than_its_lease(tmp_path: Path):
    holder = started(HOLDS, tmp_path / "shared.db", 1.5)
    world = World(store=LeasingFile(tmp_path / "shared.db"), lease=60.0, flight_timeout=1e6)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    assert world.ask() == b"answer"
    assert world.calls == 1
    world.dispatcher.close()


def test_a_process_that_ends_well_has_given_its_lease_back(tmp_path: Path):
    holder = started(HOLDS, tmp_path / "shared.db", 1e9)
    holder.communicate("give up\n", timeout=60)
    world = World(store=LeasingFile(tmp_path / "shared.db"), lease=60.0, flight_timeout=1e6)
    assert world.ask() == b"answer"
    world.dispatcher.close()
