"""``python -m benchmarks.rag``: a hundred questions over the handbook, and what their second wordings cost."""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console
from rich.table import Table

from benchmarks.rag.asked import load_wordings
from benchmarks.rag.run import Outcome, run


def main() -> None:
    from dispatch_core import SentenceTransformerEmbedder

    console = Console(width=110)
    with console.status("asking"):
        outcomes = run(load_wordings(), SentenceTransformerEmbedder())
    show(outcomes, console)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table(title="LlamaIndex's query engine over the handbook, default prompt, all-MiniLM-L6-v2")
    table.add_column("")
    for heading in ("asked", "same context", "from the cache", "tokens bare", "dispatched", "saved", "wrong"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        bare, ours = outcome.bare, outcome.dispatched
        same = str(ours.same_context) if ours.same_context else "–"
        counts = (str(ours.asked), same, str(ours.hits), f"{bare.tokens:,}", f"{ours.tokens:,}")
        table.add_row(ours.name, *counts, f"{outcome.saved:.0%}", str(ours.wrong))
    console.print(table)
    console.print("A wording that finds another context is asked anew: what an answer rests on must match exactly.")


if __name__ == "__main__":
    main()
