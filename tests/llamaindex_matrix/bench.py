"""What the scenarios of the matrix share: the table, the model that each is given, and the model's script.

Every scenario is one thing that LlamaIndex builds upon an LLM. It is run on a bare `OpenAI`, then twice on a
`DispatchLLM` around it, with an empty cache and with the cache of the run before.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from framework_embedders import HashingEmbedding
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms import LLM
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.llms.openai import OpenAI

from dispatch_core import HashingEmbedder, MemoryStore, SemanticCache, Threshold
from dispatch_core.simulate import AnswerBook, Simulator, SimulatorConfig
from dispatch_core.simulate.text import digest
from llamaindex_dispatch import DispatchLLM

QUESTION = "Where is a rented bike returned?"
TEXTS = (
    "A rented bike is returned at any Lumen shop, at the green rail beside the door.",
    "The Ghent shop is open from nine until half past six, on Sundays it is closed.",
    "A city bike costs fourteen euros per day, and seventy euros per week.",
)

Run = Callable[["Bench"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One consumer. ``calls`` is false for the few that ask no model, and have nothing to save."""

    group: str
    name: str
    run: Run
    calls: bool = True

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


SCENARIOS: list[Scenario] = []


def scenario(group: str, name: str, *, calls: bool = True) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        SCENARIOS.append(Scenario(group, name, run, calls))
        return run

    return add


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one scenario: HTTP calls bare, with an empty cache and with a full one, and whether all three runs
    had the same outcome."""

    scenario: Scenario
    bare: int
    cold: int
    warm: int
    same: bool
    outcome: str

    @property
    def holds(self) -> bool:
        saved = self.warm < self.bare if self.scenario.calls else self.warm == self.bare == 0
        return self.same and self.cold == self.bare and saved


class Bench:
    """The model under a scenario, bare or dispatched, and documents to ask it about."""

    def __init__(self, world: World, cache: SemanticCache | None) -> None:
        self._world = world
        self._cache = cache
        self.embed = HashingEmbedding()

    def model(self, **settings: Any) -> Any:
        """A model with settings of its own."""
        inner = self._world.openai(**settings)
        return inner if self._cache is None else DispatchLLM(inner, cache=self._cache)

    @property
    def llm(self) -> Any:
        return self.model()

    @property
    def nodes(self) -> list[TextNode]:
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="handbook")}
        return [TextNode(text=text, id_=f"node-{n}", relationships=source) for n, text in enumerate(TEXTS)]

    @property
    def index(self) -> VectorStoreIndex:
        return VectorStoreIndex(self.nodes, embed_model=self.embed)


class World:
    """A simulated provider and the HTTP clients of all models that ask it. No connection outlives its request, for
    some consumers ask from loops of their own."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client, self._aclient = httpx.Client(limits=limits), httpx.AsyncClient(limits=limits)

    def openai(self, **settings: Any) -> LLM:
        given = {"model": "gpt-4o-mini", "api_key": "k", "max_retries": 0, **settings}
        return OpenAI(api_base=self.simulator.url, http_client=self._client, async_http_client=self._aclient, **given)

    async def row(self, scenario: Scenario) -> Row:
        cache = SemanticCache(HashingEmbedder(), MemoryStore(), policy=Threshold(1.0))
        counts, outcomes = [], []
        before = Settings._llm, Settings._embed_model
        try:
            for bench in (Bench(self, None), Bench(self, cache), Bench(self, cache)):
                # Some consumers take theirs from here, whatever they are given.
                Settings.llm, Settings.embed_model = bench.llm, bench.embed
                self.simulator.reset()
                outcomes.append(str(await scenario.run(bench)))
                counts.append(self.simulator.stats().requests)
        finally:
            Settings._llm, Settings._embed_model = before
        bare, cold, warm = counts
        return Row(scenario, bare, cold, warm, len(set(outcomes)) == 1, outcomes[0])

    async def close(self) -> None:
        self._client.close()
        await self._aclient.aclose()


def scripted_provider() -> Simulator:
    """A provider that answers at once, and as the scenarios' scripts say."""
    simulator = Simulator(SimulatorConfig(latency=0))
    simulator.book = ScriptedBook()
    return simulator


SCRIPT: list[tuple[re.Pattern[str], str]] = []


def says(pattern: str, answer: str) -> None:
    """What the model says to a message in which the pattern is found; the first that fits counts."""
    SCRIPT.append((re.compile(pattern, re.DOTALL), answer))


class ScriptedBook(AnswerBook):
    """Answers that consumers can parse; to everything else an answer of the question's own."""

    def __init__(self) -> None:
        super().__init__({}, {})
        self._said: dict[str, str] = {}

    def group_of(self, prompt: str) -> str:
        said = next((answer for pattern, answer in SCRIPT if pattern.search(prompt)), None)
        if said is None:
            return super().group_of(prompt)
        group = f"scripted-{digest(prompt)}"
        self._said[group] = said
        return group

    def answer(self, group: str) -> str:
        return self._said.get(group) or super().answer(group)
