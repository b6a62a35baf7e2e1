"""What a new process pays: processor time of whole processes, in turn, less that of one that does nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from statistics import median

_FIRST = "from dispatch_core import {0}; {0}({1}).embed(['What is the capital of France?'])"

IMPORTS = {
    "import langchain_core": "import langchain_core",
    "import langchain_dispatch": "import langchain_dispatch",
    "what a chain needs of langchain_core": (
        "from langchain_core.caches import BaseCache\n"
        "from langchain_core.language_models import BaseChatModel\n"
        "from langchain_core.rate_limiters import BaseRateLimiter\n"
        "from langchain_core.runnables import RunnableLambda\n"
    ),
    "all names of langchain_dispatch": "from langchain_dispatch import *",
}
EMBEDDERS = {
    "first embedding, sentence-transformers": _FIRST.format("SentenceTransformerEmbedder", ""),
    "first embedding, ONNX": _FIRST.format("OnnxEmbedder", ""),
}
_HEAVY = ("torch", "transformers", "sentence_transformers", "redis", "numpy")


def cold(codes: Mapping[str, str], *, rounds: int, seed: int = 1) -> Mapping[str, float]:
    """Milliseconds of processor time of each code, the median of all rounds."""
    chance = random.Random(seed)
    arms = {"nothing": "pass", **codes}
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for code in arms.values():
        _seconds(code)
    for _ in range(rounds):
        for name in chance.sample(list(arms), len(arms)):
            spent[name].append(_seconds(arms[name]))
    nothing = median(spent["nothing"])
    return {name: 1e3 * (median(spent[name]) - nothing) for name in codes}


def heavy(code: str) -> list[str]:
    """Which of the heavy packages are there after the code."""
    shown = f"{code}\nimport sys\nprint(*(name for name in {_HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True)
    return done.stdout.split()


def _seconds(code: str) -> float:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a new process failed: {code}")
    return usage.ru_utime + usage.ru_stime
