"""LangChain's own conformance suites for chat models: a dispatched model does what the plain one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dispatch_core.simulate import Simulator, SimulatorConfig

SUITES = Path(__file__).parent.parent / "langchain_suites.py"
SETTINGS = ["-rA", "-p", "no:cacheprovider", "-o", "python_files=langchain_suites.py", "-o", "filterwarnings=ignore"]


def started(url: str, *, dispatched: bool) -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    given = {"SUITE_URL": url, "SUITE_DISPATCHED": "1" if dispatched else "", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "pytest", str(SUITES), *SETTINGS]
    return subprocess.Popen(command, env={**os.environ, **given}, stdout=subprocess.PIPE, text=True)


def outcomes(run: subprocess.Popen[str]) -> dict[str, str]:
    """The outcome of each test by its name."""
    printed, _ = run.communicate(timeout=600)
    lines = [line.split(" - ")[0].split() for line in printed.splitlines() if "langchain_suites.py::" in line]
    return {words[1]: words[0] for words in lines if words[0].isupper()}


def test_a_dispatched_model_does_in_every_standard_test_what_the_plain_one_does() -> None:
    with Simulator(SimulatorConfig(latency=0)) as provider:
        runs = [started(provider.url, dispatched=dispatched) for dispatched in (False, True)]
        plain, dispatched = [outcomes(run) for run in runs]
    assert dispatched == plain
    assert list(plain.values()).count("PASSED") > 30
    assert next(kept for name, kept in plain.items() if "left_open" in name) == "PASSED"
