"""CPU time of other processes, by Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(process: int) -> float:
    """What a process has used so far, its threads included."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busiest(process: int) -> float:
    """CPU seconds of a process or of one of those it has started, whichever used most."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return max(map(cpu_seconds, (process, *map(int, children))))
