"""The processes of one run: a fresh provider, a fresh application in front of it, and what each of them cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.demo.provider import Provider, provider
from benchmarks.load_test.regime import Regime


@dataclass(frozen=True, slots=True)
class Stage:
    """Where to ask, and how to read what both processes tell of themselves."""

    url: str
    provider: Provider

    def application(self) -> dict[str, Any]:
        """CPU seconds of its busiest process, and the P99 of how late its loop woke up, in seconds."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=60) as reply:
            told: dict[str, Any] = json.load(reply)
            return told

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU seconds of the application and of the provider since they started."""
        return float(self.application()["cpu_seconds"]), float(self.provider.stats()["cpu_seconds"])


@dataclass(frozen=True, slots=True)
class Cost:
    """What a stretch of time took of one core, as shares, and what the provider counted in it.

    ``lag`` is the P99 of how late the application woke up, in seconds.
    """

    application: float
    provider: float
    generator: float
    counted: dict[str, Any]
    lag: float = 0.0


class Meter:
    """Shares of a core from its making to `read`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before = stage.cpu_seconds()
        self._began, self._own = time.monotonic(), time.thread_time()

    def read(self, generator_seconds: float | None = None) -> Cost:
        """``generator_seconds``: CPU of whoever asked, if that was not this thread."""
        took = time.monotonic() - self._began
        after = self._stage.cpu_seconds()
        application, of_provider = ((now - before) / took for now, before in zip(after, self._before, strict=True))
        own = time.thread_time() - self._own if generator_seconds is None else generator_seconds
        return Cost(
            application,
            of_provider,
            own / took,
            self._stage.provider.stats(),
            float(self._stage.application()["lag"]),
        )


@contextmanager
def stage(arm: str, regime: Regime, *, seed: int) -> Iterator[Stage]:
    """Both processes, for as long as one run lasts. One thread computes in each."""
    quota = regime.quota
    with provider(quota, seed=seed, latency=regime.latency, grounded=True) as server:
        command = [sys.executable, "-m", "benchmarks.load_test.application", "--arm", arm, "--provider", server.url]
        command += ["--rpm", str(quota.rpm), "--tpm", str(quota.tpm), "--window", str(quota.window)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("application on "):
                raise RuntimeError(f"the application of the arm {arm!r} did not start: {line!r}")
            yield Stage(line.split()[-1], server)
        finally:
            process.terminate()
            process.wait(timeout=20)
            assert process.stdout is not None
            process.stdout.close()
