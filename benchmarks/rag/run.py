"""The run: LlamaIndex's query engine with its default prompt, bare and dispatched, against the simulated provider.

The simulator answers by what is asked, whatever the context, and knows the one right answer of every question: an
answer of another question is seen at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import LLM
from llama_index.llms.openai import OpenAI

from benchmarks.demo.llamaindex_arm import MODEL, build_index
from benchmarks.demo.trace import ANSWERS, QUESTIONS, load_answers
from benchmarks.rag.asked import Wordings, load_look_alikes
from dispatch_core import Embedder, MemoEmbedder, MemoryStore, SemanticCache
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM

TOP_K = 1
"""Chunks per question. The context must match exactly: with more of them, another wording more often finds others."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over the questions: how many, how many of them found the context of the first wording, how many were
    answered without the provider, its tokens, and how many answers were those of another question."""

    name: str
    asked: int
    same_context: int
    hits: int
    tokens: int
    wrong: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One pass, bare and dispatched."""

    bare: Pass
    dispatched: Pass

    @property
    def saved(self) -> float:
        """The share of the provider's tokens that dispatching saved."""
        return 1 - self.dispatched.tokens / self.bare.tokens


def run(wordings: Sequence[Wordings], embedder: Embedder) -> list[Outcome]:
    """First wordings, the same typed again and in free words, and look-alikes; dispatched with one cache."""
    memo = MemoEmbedder(embedder)
    index = build_index(memo)
    with provider(wordings) as simulator:
        bare = OpenAI(model=MODEL, api_base=simulator.url, api_key="none", max_retries=0)
        dispatched = DispatchLLM(bare, cache=SemanticCache(memo, MemoryStore()))
        try:
            arms = [passes(wordings, index, llm, simulator) for llm in (bare, dispatched)]
        finally:
            bare._get_client().close()
    return [Outcome(*pair) for pair in zip(*arms, strict=True)]


def passes(wordings: Sequence[Wordings], index: VectorStoreIndex, llm: LLM, simulator: Simulator) -> list[Pass]:
    asker = Asker(index, llm, simulator)
    return [
        asker.ask("first wording", [(each.group, each.first, each.first) for each in wordings]),
        asker.ask("typed again", [(each.group, each.again, each.first) for each in wordings]),
        asker.ask("in free words", [(each.group, each.freely, each.first) for each in wordings if each.freely]),
        asker.ask("look-alikes", [(group, text, None) for group, text in load_look_alikes()]),
    ]


class Asker:
    """Asks one arm, and counts."""

    def __init__(self, index: VectorStoreIndex, llm: LLM, simulator: Simulator) -> None:
        self._engine = index.as_query_engine(llm=llm, similarity_top_k=TOP_K)
        self._retriever = index.as_retriever(similarity_top_k=TOP_K)
        self._simulator = simulator
        self._right = load_answers()

    def ask(self, name: str, questions: Sequence[tuple[str, str, str | None]]) -> Pass:
        """Each question with its group and its first wording, if it has one."""
        self._simulator.reset()
        answers = [str(self._engine.query(text)) for _, text, _ in questions]
        right = [self._right[group] for group, _, _ in questions]
        stats = self._simulator.stats()
        return Pass(
            name,
            asked=len(questions),
            same_context=sum(first is not None and self._same(first, text) for _, text, first in questions),
            hits=len(questions) - stats.admitted,
            tokens=stats.prompt_tokens + stats.completion_tokens,
            wrong=sum(answer != wanted for answer, wanted in zip(answers, right, strict=True)),
        )

    def _same(self, first: str, text: str) -> bool:
        return self._found(first) == self._found(text)

    def _found(self, text: str) -> list[Any]:
        return [found.node.node_id for found in self._retriever.retrieve(text)]


@contextmanager
def provider(wordings: Sequence[Wordings]) -> Iterator[Simulator]:
    """A provider that knows every wording of every question."""
    rows = [json.dumps({"group": each.group, "text": each.again}) for each in wordings]
    with TemporaryDirectory() as folder:
        known = Path(folder) / "questions.jsonl"
        known.write_text("\n".join([QUESTIONS.read_text("utf-8").rstrip(), *rows]), "utf-8")
        config = SimulatorConfig(latency=0, groups=known, answers=ANSWERS)
        with Simulator(config) as simulator:
            yield simulator
