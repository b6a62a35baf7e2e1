"""Every consumer of an LLM in LlamaIndex: as good through `DispatchLLM` as bare, and cheaper the second time.

``python -m llamaindex_matrix`` prints the table, with ``tests`` on the path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from llamaindex_matrix import SCENARIOS, Scenario, World, scripted_provider

from dispatch_core.simulate import Simulator


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with scripted_provider() as simulator:
        yield simulator


@pytest.fixture(scope="module")
async def world(provider: Simulator) -> AsyncIterator[World]:
    world = World(provider)
    yield world
    await world.close()


# What LlamaIndex asks of itself in words that it gave up.
@pytest.mark.filterwarnings("ignore:is_running called from within a step:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")
# Workflows read every attribute of their own pydantic models, deprecated ones included.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_a_consumer_fares_as_with_the_bare_model_and_its_second_run_asks_less(
    world: World, scenario: Scenario
) -> None:
    row = await world.row(scenario)
    assert row.same
    assert row.cold == row.bare
    assert row.holds


def test_the_matrix_has_every_kind_of_consumer() -> None:
    groups = Counter(scenario.group for scenario in SCENARIOS)
    assert len({str(scenario) for scenario in SCENARIOS}) == len(SCENARIOS) >= 49
    assert groups.keys() == {
        *("model", "synthesizer", "chat engine", "agent"),
        *("structured", "query engine", "extraction", "evaluation"),
    }
