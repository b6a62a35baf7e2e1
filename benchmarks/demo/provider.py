"""The simulated provider in a process of its own, one per arm, so that no arm inherits another's quota."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.demo.trace import ANSWERS, QUESTIONS


@dataclass(frozen=True, slots=True)
class Quota:
    """What the provider allows and the limiter is told: per minute, counted over ``window`` seconds."""

    rpm: int
    tpm: int
    window: float


@dataclass(frozen=True, slots=True)
class Provider:
    url: str
    quota: Quota

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/stats", timeout=10) as reply:
            counts: dict[str, Any] = json.load(reply)
            return counts


@contextmanager
def provider(quota: Quota, *, seed: int, latency: float = 1.0, grounded: bool = False) -> Iterator[Provider]:
    """Start ``dispatcher simulate``, yield its address, stop it. ``latency`` scales its times; a ``grounded`` one
    knows only what its prompt says."""
    command = [sys.executable, "-m", "dispatch_core", "simulate", "--port", "0", "--seed", str(seed)]
    command += ["--latency", str(latency)]
    command += ["--rpm", str(quota.rpm), "--tpm", str(quota.tpm), "--window", str(quota.window)]
    command += ["--questions", str(QUESTIONS), "--answers", str(ANSWERS)]
    command += ["--grounded"] if grounded else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        urls = [word for word in line.split() if word.startswith("http://")]
        if not urls:
            raise RuntimeError(f"the simulator did not start: {line!r}")
        yield Provider(urls[0], quota)
    finally:
        process.terminate()
        process.wait(timeout=10)
