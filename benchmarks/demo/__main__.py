"""``make demo``: the same questions bare and dispatched, through LangChain and LlamaIndex."""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import AbstractContextManager
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
    with console.status("loading frameworks and all-MiniLM-L6-v2"):
        from benchmarks.demo import langchain_arm, llamaindex_arm
        from dispatch_core import MemoEmbedder, SentenceTransformerEmbedder

        model = SentenceTransformerEmbedder()
        model.load()
        index = llamaindex_arm.build_index(model)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[ArmResult] = []
    with Progress(*columns, console=console) as progress:

        def arm(framework: str, name: str, quota: Quota) -> None:
            def ask_through(server: Provider) -> AbstractContextManager[Ask]:
                if framework == "LangChain":
                    if name == "bare":
                        return langchain_arm.bare(server)
                    return langchain_arm.dispatched(server, MemoEmbedder(model))
                if name == "bare":
                    return llamaindex_arm.bare(server, index)
                return llamaindex_arm.dispatched(server, index, MemoEmbedder(model))

            task = progress.add_task(f"{framework:<10} {name}", total=len(trace))
            with provider(quota, seed=options.seed) as server, ask_through(server) as ask:
                outcomes = asyncio.run(_run(trace, ask, lambda: progress.advance(task)))
                results.append(ArmResult(framework, name, outcomes, load_answers(), server.stats()))

        for framework, quota in (("LangChain", LANGCHAIN_QUOTA), ("LlamaIndex", LLAMAINDEX_QUOTA)):
            for name in ("bare", "dispatched"):
                arm(framework, name, quota)

    show(results, repeats(trace), console)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "demo.png"
    plot(results, path)
    console.print(f"plot: {path}")


async def _run(trace: list[Arrival], ask: Ask, on_done: object) -> list[Outcome]:
    return await replay(trace, ask, on_done)  # type: ignore[arg-type]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rate", type=float, default=16.0, help="questions per second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="order and times of the questions (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder of the plot")
    return parser.parse_args()


if __name__ == "__main__":
    main()
