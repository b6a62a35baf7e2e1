"""A gateway in a process of its own, for the arm that asks through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.load_test.arms import Target


@contextmanager
def gateway(target: Target, *, share: float) -> Iterator[str]:
    """Start one in front of the target, yield its base URL, stop it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "dispatch.yaml")
        # JSON is YAML.
        file.write_text(json.dumps(_settings(target, share)), encoding="utf-8")
        words = ["-m", "dispatch_gateway", "--config", str(file), "--port", "0", "--log-level", "warning"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "http://" not in line:
                raise RuntimeError(f"the gateway did not start: {line!r}")
            yield line.split()[-1]
        finally:
            process.terminate()
            process.wait(timeout=60)
            assert process.stdout is not None
            process.stdout.close()


def _settings(target: Target, share: float) -> dict[str, Any]:
    quota = target.quota
    limits = {"rpm": quota.rpm, "tpm": quota.tpm, "window": quota.window, "burst": quota.window}
    deployment = {"base_url": target.url, "api_key": "none", "limits": limits}
    return {"models": {"*": [deployment]}, "compression": {"*": {"steps": [{"extractive": {"share": share}}]}}}
