"""Run Locust against one application and read what it saw."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo.trace import Arrival
from benchmarks.load_test.outcome import Asked
from benchmarks.load_test.regime import Regime
from benchmarks.load_test.trace import write_trace

FILE = Path(__file__).with_name("locustfile.py")
LIMIT = 300
"""Seconds after which Locust gives up."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The arrivals that were asked, and how they came back; CPU seconds of whoever asked, if in another process."""

    trace: list[Arrival]
    asked: list[Asked]
    cpu_seconds: float | None


def locust_command(given: str | None) -> list[str] | None:
    """How Locust is started: the program that was given, else this environment's; None if there is none."""
    if given is not None:
        return [given]
    return [sys.executable, "-m", "locust"] if importlib.util.find_spec("locust") else None


def run_locust(command: list[str], trace: Sequence[Arrival], url: str, regime: Regime, *, seed: int) -> Seen:
    """All questions of the trace, asked by ``regime.users`` who think. Raises RuntimeError if Locust fails."""
    with tempfile.TemporaryDirectory() as folder:
        questions, results = Path(folder, "trace.jsonl"), Path(folder, "results.jsonl")
        write_trace(trace, questions)
        users = str(regime.users)
        told = [*command, "--locustfile", str(FILE), "--host", url, "--headless", "--only-summary"]
        told += ["--users", users, "--spawn-rate", users, "--run-time", f"{LIMIT}s", "--stop-timeout", "0"]
        environment = {
            **os.environ,
            "LOAD_TEST_TRACE": str(questions),
            "LOAD_TEST_RESULTS": str(results),
            "LOAD_TEST_THINK": str(regime.think),
            "LOAD_TEST_SEED": str(seed),
        }
        # Its exit code is 1 as soon as one answer was an error, which is what the bare arm is there to show.
        done = subprocess.run(told, env=environment, capture_output=True, text=True, check=False)
        if not results.exists():
            raise RuntimeError(f"Locust failed: {done.stderr[-2000:]}")
        first, *rows = (json.loads(line) for line in results.read_text("utf-8").splitlines())
    begun = min(row["at"] for row in rows)
    asked = [
        Asked(row["seconds"], row["status"], row.get("answer"), bool(row.get("hit")), row.get("error"))
        for row in rows
    ]
    arrivals = [Arrival(row["at"] - begun, trace[row["turn"]].question) for row in rows]
    return Seen(arrivals, asked, float(first["cpu_seconds"]))
