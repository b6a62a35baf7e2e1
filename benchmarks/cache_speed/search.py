"""Search in process against exact search: time, recall and memory. ``python -m benchmarks.cache_speed.search``.

The vectors are those of this project's own questions, and mixtures of them as close as questions of one subject are.
Each query is a stored vector turned away until their cosine is between 0.90 and 0.99, half of them into a direction
that questions differ in and half into any. Recall is the share of the exact nearest vectors that were found; "near"
is the same of those among the eight whose cosine is at least 0.85: what an answer can rest on. Times are processor
time with all threads, medians, of the arms in turn; bytes are what Python and numpy hold more than before.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dispatch_core import SentenceTransformerEmbedder
from dispatch_core.keys import digest
from dispatch_core.stores._index import VectorIndex
from dispatch_core.types import Matrix, Vector

SIZES = (1_000, 10_000, 100_000)
NEIGHBOURS = 8
NEAR = 0.85
_QUESTIONS = Path(__file__).parents[1] / "data" / "questions.jsonl"
_BATCH = 50_000
_QUERIES = 200
_SCOPE = digest("scope")
_FAISS_SCORED = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One size. Microseconds by the name of the arm; recalls as shares."""

    entries: int
    micros: dict[str, float]
    first: float
    eight: float
    near: float
    put: float
    size: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_speed.search", description=__doc__)
    parser.add_argument("entries", type=int, nargs="*", default=SIZES, help="how many vectors, e.g. 1000000 (4 GB)")
    options = parser.parse_args(arguments)
    # Read by BLAS when a process starts.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    questions = embedded()
    rows = []
    for entries in options.entries:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows.append(pool.submit(measured, questions, entries).result())
    print(table(rows))


def embedded() -> Matrix:
    texts = [json.loads(line)["text"] for line in _QUESTIONS.read_text(encoding="utf-8").splitlines()]
    return SentenceTransformerEmbedder().embed(texts)


def turned(vectors: Matrix, cosines: NDArray[np.float32], into: Matrix) -> Matrix:
    """Unit vectors at these cosines to others; ``into`` gives the directions."""
    away = into - (into * vectors).sum(axis=1, keepdims=True) * vectors
    away /= np.linalg.norm(away, axis=1, keepdims=True) + 1e-9
    mixed = cosines[:, None] * vectors + np.sqrt(1 - cosines**2)[:, None] * away
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def differences(base: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """How one of the base differs from another."""
    return base[rng.integers(0, len(base), count)] - base[rng.integers(0, len(base), count)]


def clustered(base: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    vectors = np.empty((count, base.shape[1]), np.float32)
    for start in range(0, count, _BATCH):
        part = vectors[start : start + _BATCH]
        chosen = base[rng.integers(0, len(base), len(part))]
        cosines = rng.uniform(0.6, 0.95, len(part)).astype(np.float32)
        part[:] = turned(chosen, cosines, differences(base, len(part), rng))
    return vectors


def asked(base: Matrix, vectors: Matrix, rng: np.random.Generator) -> Matrix:
    """Near-duplicates of stored vectors."""
    chosen = vectors[rng.integers(0, len(vectors), _QUERIES)]
    half = _QUERIES // 2
    noise = rng.normal(size=(_QUERIES - half, base.shape[1])).astype(np.float32)
    into = np.concatenate([differences(base, half, rng), noise])
    return turned(chosen, rng.uniform(0.90, 0.99, _QUERIES).astype(np.float32), into)


def measured(base: Matrix, entries: int) -> Row:
    rng = np.random.default_rng(1)
    vectors = clustered(base, entries, rng)
    queries = asked(base, vectors, rng)
    index, size = _built(vectors)
    arms: dict[str, Callable[[Vector], object]] = {
        "index": lambda query: index.search(query, scope=_SCOPE, limit=NEIGHBOURS, now=0.0),
        "numpy": lambda query: _exact(vectors, query),
    }
    if importlib.util.find_spec("faiss"):
        arms["faiss"] = _faiss(vectors)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for query in queries[: 40 if entries > 200_000 else None]:
        for name in rng.permutation(list(arms)):
            started = time.process_time()
            arms[name](query)
            times[name].append(time.process_time() - started)
    puts = []
    for number, vector in enumerate(queries):
        started = time.process_time()
        index.put(digest(f"new {number}"), _SCOPE, vector, None)
        puts.append(time.process_time() - started)
        index.remove(digest(f"new {number}"))
    return Row(
        entries,
        {name: 1e6 * statistics.median(taken) for name, taken in times.items()},
        *_recall(index, vectors, queries),
        1e6 * statistics.median(puts),
        size / entries,
    )


def _built(vectors: Matrix) -> tuple[VectorIndex, int]:
    """The index, and the bytes that it takes."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    index = VectorIndex()
    for number, vector in enumerate(vectors):
        index.put(digest(f"{number}"), _SCOPE, vector, None)
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return index, size


def _exact(vectors: Matrix, query: Vector) -> NDArray[np.intp]:
    scores = vectors @ query
    rows = np.argpartition(-scores, NEIGHBOURS)[:NEIGHBOURS]
    return rows[np.argsort(-scores[rows])]


def _faiss(vectors: Matrix) -> Callable[[Vector], object]:
    """A flat index of the same kind of codes, its nearest scored."""
    import faiss

    faiss.omp_set_num_threads(1)
    mean = vectors[:_BATCH].mean(axis=0)
    flat = faiss.IndexBinaryFlat(8 * (vectors.shape[1] // 8))
    for start in range(0, len(vectors), _BATCH):
        flat.add(np.packbits(vectors[start : start + _BATCH] > mean, axis=1))

    def search(query: Vector) -> object:
        rows = flat.search(np.packbits(query > mean)[None], _FAISS_SCORED)[1][0]
        scores = vectors[rows] @ query
        best = np.argsort(-scores)[:NEIGHBOURS]
        return rows[best], scores[best]

    return search


def _recall(index: VectorIndex, vectors: Matrix, queries: Matrix) -> tuple[float, float, float]:
    """At 1, at 8, and of those of the 8 that are near. Vectors that score alike are as good as each other."""
    first, eight, near = [], [], []
    for query in queries:
        right = np.array([vectors[row] @ query for row in _exact(vectors, query)])
        found = np.array([score for _, score in index.search(query, scope=_SCOPE, limit=NEIGHBOURS, now=0.0)])
        first.append(found[0] >= right[0] - 1e-5)
        eight.append(np.mean(found >= right[-1] - 1e-5))
        near += [place < np.count_nonzero(found >= NEAR) for place in range(np.count_nonzero(right >= NEAR))]
    return float(np.mean(first)), float(np.mean(eight)), float(np.mean(near))


def table(rows: Sequence[Row]) -> str:
    arms = list(rows[0].micros)
    heads = ["entries", *(f"{arm} µs" for arm in arms), "recall@1", "recall@8", "near", "put µs", "bytes/entry"]
    lines = ["  ".join(f"{head:>11}" for head in heads)]
    for row in rows:
        cells = [f"{row.entries:,}", *(f"{row.micros[arm]:,.0f}" for arm in arms)]
        cells += [f"{share:.3f}" for share in (row.first, row.eight, row.near)]
        cells += [f"{row.put:.0f}", f"{row.size:,.0f}"]
        lines.append("  ".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
