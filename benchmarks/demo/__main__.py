"""``make demo``: the same questions bare and dispatched, through LangChain and LlamaIndex."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.demo.provider import Provider, Quota, provider
from benchmarks.demo.replay import Ask, Outcome, replay
from benchmarks.demo.report import ArmResult, plot, show
from benchmarks.demo.trace import Arrival, load_answers, load_questions, make_trace, repeats

# Demand is a little above the quota of requests; tokens are enough for either program's prompts.
LANGCHAIN_QUOTA = Quota(rpm=920, tpm=90_000, window=10.0)
LLAMAINDEX_QUOTA = Quota(rpm=920, tpm=600_000, window=10.0)


def main() -> None:
    options = _options()
    console = Console(width=128)
    trace = make_trace(load_questions(), rate=options.rate, seed=options.seed)
    with console.status("loading the frameworks and all-MiniLM-L6-v2"):
        arms = _arms()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[ArmResult] = []
    with Progress(*columns, console=console) as progress:
        for arm in arms:
            task = progress.add_task(f"{arm.framework:<10} {arm.name}", total=len(trace))
            with provider(arm.quota, seed=options.seed) as server:
                outcomes = asyncio.run(arm.replay(server, trace, partial(progress.advance, task)))
                results.append(ArmResult(arm.framework, arm.name, outcomes, load_answers(), server.stats()))
    show(results, repeats(trace), console)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "demo.png"
    plot(results, path)
    console.print(f"plot: {path}")


@dataclass(frozen=True, slots=True)
class Arm:
    """A program to replay the trace through; ``open`` gives its ``ask`` for as long as the provider runs."""

    framework: str
    name: str
    quota: Quota
    open: Callable[[Provider], AbstractAsyncContextManager[Ask]]

    async def replay(self, server: Provider, trace: list[Arrival], on_done: Callable[[], None]) -> list[Outcome]:
        async with self.open(server) as ask:
            return await replay(trace, ask, on_done)


def _arms() -> list[Arm]:
    """Bare and dispatched, in pairs. Imported here, because it takes seconds and the terminal should say so."""
    from benchmarks.demo import langchain_arm, llamaindex_arm
    from dispatch_core import MemoEmbedder, SentenceTransformerEmbedder

    model = SentenceTransformerEmbedder()
    model.load()
    index = llamaindex_arm.build_index(model)
    # One embedding of a question serves the retrieval and the cache.
    memo = MemoEmbedder(model)
    shared = llamaindex_arm.build_index(memo)
    return [
        Arm("LangChain", "bare", LANGCHAIN_QUOTA, langchain_arm.bare),
        Arm("LangChain", "dispatched", LANGCHAIN_QUOTA, lambda p: langchain_arm.dispatched(p, MemoEmbedder(model))),
        Arm("LlamaIndex", "bare", LLAMAINDEX_QUOTA, lambda p: llamaindex_arm.bare(p, index)),
        Arm(
            "LlamaIndex",
            "dispatched",
            LLAMAINDEX_QUOTA,
            lambda p: llamaindex_arm.dispatched(p, shared, memo),
        ),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rate", type=float, default=16.0, help="questions per second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="order and times of the questions (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder of the plot")
    return parser.parse_args()


if __name__ == "__main__":
    main()
