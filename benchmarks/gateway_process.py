"""A gateway in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def gateway(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Serve with these settings: the base URL (``http://HOST:PORT/v1``) and the id of the process."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # JSON is YAML.
        json.dump(settings, file)
        file.flush()
        words = ["--config", file.name, "--port", "0", "--log-level", "warning"]
        command = [sys.executable, "-m", "dispatch_gateway", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if "http://" not in line:
                    raise RuntimeError(f"the gateway did not start: {line!r}")
                yield line.split()[-1], process.pid
            finally:
                process.terminate()
