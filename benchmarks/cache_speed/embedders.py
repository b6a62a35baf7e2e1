"""all-MiniLM-L6-v2 as an ONNX graph beside sentence-transformers: one text, many askers, and the first of a process.

Both are measured in turns, in random order, in one run; compare the ratios, which hold on a busy machine too.
``python -m benchmarks.cache_speed.embedders`` takes about two minutes.
"""

from __future__ import annotations

import os

# Before numpy and torch are imported: threads that spin beside each other would measure themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import asyncio
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dispatch_core import Embedder, OnnxEmbedder, SentenceTransformerEmbedder
from dispatch_core.embed.export import export_model

MODEL = "all-MiniLM-L6-v2"
ONNX, ORIGINAL = "onnx", "sentence-transformers"
LENGTHS = (12, 60, 256)
ASKERS = 100
_WORDS = "the a how do i reset my old phone and where can we pay for it on time".split()  # noqa: SIM905
_FIRST = {
    ONNX: "from dispatch_core import OnnxEmbedder; OnnxEmbedder(path={folder!r}).embed(['a text'])",
    ORIGINAL: "from dispatch_core import SentenceTransformerEmbedder as E; E({model!r}).embed(['a text'])",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40, help="calls of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = export_model(MODEL, to=Path(scratch) / "graph").folder
        both: dict[str, Embedder] = {ONNX: OnnxEmbedder(path=folder), ORIGINAL: SentenceTransformerEmbedder(MODEL)}
        print(f"{'':34}{ONNX:>12}{ORIGINAL:>24}{'ratio':>8}")
        for tokens in LENGTHS:
            text = " ".join(rng.choices(_WORDS, k=tokens - 2))
            calls = {name: _embedding(embedder, text) for name, embedder in both.items()}
            _show(f"{tokens} tokens, ms of CPU", in_turns(calls, options.repeats, rng))
        _show(f"{ASKERS} askers, texts/s", asked(both, rng))
        starts = {name: _starting(code.format(folder=str(folder), model=MODEL)) for name, code in _FIRST.items()}
        _show("first embedding, ms of CPU", in_turns(starts, 5, rng))


def in_turns(calls: Mapping[str, Callable[[], float]], repeats: int, rng: random.Random) -> dict[str, float]:
    """The median of what each call returns, in an order that favours none."""
    order = [name for name in calls for _ in range(repeats)]
    rng.shuffle(order)
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name in order:
        found[name].append(calls[name]())
    return {name: statistics.median(values) for name, values in found.items()}


def asked(embedders: Mapping[str, Embedder], rng: random.Random) -> dict[str, float]:
    """Texts per second of wall time when many ask one loop, each for a short text of its own."""
    texts = [" ".join(rng.choices(_WORDS, k=10)) for _ in range(ASKERS)]

    def rate(embedder: Embedder) -> float:
        async def ask_all() -> float:
            start = time.perf_counter()
            await asyncio.gather(*(embedder.aembed([text]) for text in texts))
            return len(texts) / (time.perf_counter() - start)

        return asyncio.run(ask_all())

    return in_turns({name: partial(rate, embedder) for name, embedder in embedders.items()}, 5, rng)


def _embedding(embedder: Embedder, text: str) -> Callable[[], float]:
    def call() -> float:
        start = time.thread_time()
        embedder.embed([text])
        return (time.thread_time() - start) * 1e3

    return call


def _starting(code: str) -> Callable[[], float]:
    def call() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3

    return call


def _show(title: str, found: Mapping[str, float]) -> None:
    print(f"{title:34}{found[ONNX]:12.1f}{found[ORIGINAL]:24.1f}{found[ONNX] / found[ORIGINAL]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
