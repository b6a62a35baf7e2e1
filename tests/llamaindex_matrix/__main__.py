"""``PYTHONPATH=core:.:tests python -m llamaindex_matrix``: every scenario, its HTTP calls and whether it holds."""

from __future__ import annotations

import asyncio
import sys
import warnings

from rich.console import Console
from rich.table import Table

from llamaindex_matrix import SCENARIOS, Row, World, scripted_provider


async def rows() -> list[Row]:
    with scripted_provider() as simulator:
        world = World(simulator)
        try:
            return [await world.row(scenario) for scenario in SCENARIOS]
        finally:
            await world.close()


def main() -> int:
    # Workflows read every attribute of their own pydantic models, deprecated ones included.
    warnings.simplefilter("ignore")
    found = asyncio.run(rows())
    table = Table(title=f"{len(found)} consumers of an LLM in LlamaIndex, bare and through DispatchLLM")
    for heading in ("consumer", "HTTP bare", "cold", "warm", "same outcome", "holds"):
        table.add_column(heading, justify="left" if heading == "consumer" else "right")
    for row in found:
        numbers = (str(row.bare), str(row.cold), str(row.warm))
        table.add_row(str(row.scenario), *numbers, "yes" if row.same else "NO", "yes" if row.holds else "NO")
    totals = (sum(row.bare for row in found), sum(row.cold for row in found), sum(row.warm for row in found))
    table.add_section()
    table.add_row("all", *map(str, totals), "", f"{sum(row.holds for row in found)} of {len(found)}")
    Console(width=110).print(table)
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
