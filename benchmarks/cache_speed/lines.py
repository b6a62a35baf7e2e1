"""What the cache must reach, line by line, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.cache_speed.measure import Sample


@dataclass(slots=True)
class Figures:
    """All that was measured: contestants by name, milliseconds of new processes, and single numbers."""

    samples: dict[str, Sample] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


Measure = Callable[[Figures], float]
"""Raises `KeyError` for what was not measured."""


@dataclass(frozen=True, slots=True)
class Line:
    """``measure`` is at most the ``target``, or at least; ``missing`` says what it takes to be measured."""

    title: str
    target: float
    measure: Measure
    at_least: bool = False
    unit: str = "×"
    missing: str = ""

    def measured(self, figures: Figures) -> float | None:
        try:
            return self.measure(figures)
        except KeyError:
            return None

    def reached(self, measured: float) -> bool:
        return measured >= self.target if self.at_least else measured <= self.target


def _cpu(name: str, of: str) -> Measure:
    return lambda figures: figures.samples[name].cpu / figures.samples[of].cpu


def _throughput(name: str, of: str) -> Measure:
    return lambda figures: figures.samples[of].wall / figures.samples[name].wall


def _cold(name: str, of: str) -> Measure:
    return lambda figures: figures.cold[name] / figures.cold[of]


def _number(name: str) -> Measure:
    return lambda figures: figures.numbers[name]


def _spent(name: str, unit: float) -> Measure:
    return lambda figures: figures.samples[name].cpu / unit


_RUN = "run without --quick"
_SEARCH = "needs a RediSearch: set DISPATCH_TEST_REDISEARCH_URL"
_MILLION = "needs 8 GB: --million"

LINES: Sequence[Line] = (
    Line("hit by meaning at 10k : embedding", 1.15, _cpu("hit by meaning, 10,000", "embedding"), missing=_RUN),
    Line("hit by meaning at 100k : embedding", 1.20, _cpu("hit by meaning, 100,000", "embedding"), missing=_RUN),
    Line(
        "hit by meaning at 10k : article's code, in process",
        0.45,
        _cpu("hit by meaning, 10,000", "article's code, in process"),
        missing=_RUN,
    ),
    Line("hit by meaning : RedisVL check", 0.42, _cpu("hit by meaning, 10,000", "redisvl check"), missing=_SEARCH),
    Line(
        "stubbed embedding: hit : RedisVL check",
        0.35,
        _cpu("hit on RediSearch, stubbed", "redisvl check, stubbed"),
        missing=_SEARCH,
    ),
    Line(
        "stubbed embedding: store : RedisVL store",
        0.40,
        _cpu("store on RediSearch, stubbed", "redisvl store, stubbed"),
        missing=_SEARCH,
    ),
    Line("store : embedding", 1.25, _cpu("store", "embedding")),
    Line("recall@1 of near duplicates at 10k", 1.0, _number("recall 10,000"), True, "", _RUN),
    Line("recall@1 of near duplicates at 100k", 1.0, _number("recall 100,000"), True, "", _RUN),
    Line("recall@1 of near duplicates at 1M", 0.99, _number("recall 1,000,000"), True, "", _MILLION),
    Line("search of the nearest 8 at 10k", 0.1, _spent("search, 10,000", 1e3), unit="ms", missing=_RUN),
    Line("search of the nearest 8 at 100k", 0.5, _spent("search, 100,000", 1e3), unit="ms", missing=_RUN),
    Line("search of the nearest 8 at 1M", 4.0, _spent("search, 1,000,000", 1e3), unit="ms", missing=_MILLION),
    Line("memory of an entry at 384 dimensions", 2.2, _number("KB an entry"), unit="KB"),
    Line("exact hit in process", 8.0, _spent("exact hit, begin", 1.0), unit="µs"),
    Line(
        "exact hit in process : LiteLLM's local cache",
        0.10,
        _cpu("exact hit, lookup", "litellm, local cache"),
        missing="needs litellm",
    ),
    Line("exact hit through Redis : redis-py GET", 1.15, _cpu("exact hit through Redis", "redis-py GET")),
    Line(
        "100 askers: exact hits a second : redis.asyncio GETs",
        4.0,
        _throughput("100 askers, exact hit through Redis", "100 askers, redis.asyncio GET"),
        True,
    ),
    Line(
        "100 askers: hits by meaning a second : RedisVL acheck",
        4.0,
        _throughput("100 askers, hit by meaning", "100 askers, redisvl acheck"),
        True,
        missing=_SEARCH,
    ),
    Line("100 askers: lag of the loop, P99", 10.0, _number("lag"), unit="ms"),
    Line(
        "import langchain_dispatch : langchain_core",
        1.2,
        _cold("import langchain_dispatch", "import langchain_core"),
        missing=_RUN,
    ),
    Line("heavy packages imported with it", 0, _number("heavy"), unit=""),
    Line(
        "import, load, first embedding: ONNX : sentence-transformers",
        0.1,
        _cold("first embedding, ONNX", "first embedding, sentence-transformers"),
        missing=f"{_RUN}; needs OnnxEmbedder and its graph",
    ),
)


def judged(figures: Figures, lines: Sequence[Line] = LINES) -> Mapping[Line, float | None]:
    return {line: line.measured(figures) for line in lines}
