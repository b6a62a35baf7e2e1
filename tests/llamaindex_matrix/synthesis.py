"""Every mode of the response synthesizers, whole and streamed."""

from __future__ import annotations

from typing import Any

from llama_index.core import get_response_synthesizer
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import NodeWithScore
from pydantic import BaseModel

from llamaindex_matrix.bench import QUESTION, Bench, scenario

GROUP = "synthesizer"
SILENT = {ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY}
STREAMS = set(ResponseMode) - SILENT - {ResponseMode.ACCUMULATE, ResponseMode.COMPACT_ACCUMULATE}


class Place(BaseModel):
    """A place."""

    name: str


def _synthesizer(b: Bench, mode: ResponseMode, **settings: Any) -> Any:
    helper = PromptHelper(context_window=4096, num_output=256, chunk_size_limit=120)
    return get_response_synthesizer(response_mode=mode, llm=b.llm, prompt_helper=helper, **settings)


def _nodes(b: Bench) -> list[NodeWithScore]:
    return [NodeWithScore(node=node, score=1.0) for node in b.nodes]


def _whole(mode: ResponseMode) -> Any:
    async def run(b: Bench) -> Any:
        return _synthesizer(b, mode).synthesize(QUESTION, _nodes(b))

    return run


def _awhole(mode: ResponseMode) -> Any:
    async def run(b: Bench) -> Any:
        return await _synthesizer(b, mode).asynthesize(QUESTION, _nodes(b))

    return run


def _streamed(mode: ResponseMode) -> Any:
    async def run(b: Bench) -> Any:
        return "".join(_synthesizer(b, mode, streaming=True).synthesize(QUESTION, _nodes(b)).response_gen)

    return run


for mode in ResponseMode:
    scenario(GROUP, mode.value, calls=mode not in SILENT)(_whole(mode))
    scenario(GROUP, f"{mode.value}, async", calls=mode not in SILENT)(_awhole(mode))
    if mode in STREAMS:
        scenario(GROUP, f"{mode.value}, streamed")(_streamed(mode))


@scenario(GROUP, "tree_summarize into a class")
async def _into_a_class(b: Bench) -> Any:
    return _synthesizer(b, ResponseMode.TREE_SUMMARIZE, output_cls=Place).synthesize(QUESTION, _nodes(b))


@scenario(GROUP, "refine with a structured filter")
async def _filtering(b: Bench) -> Any:
    synthesizer = _synthesizer(b, ResponseMode.REFINE, structured_answer_filtering=True)
    return synthesizer.synthesize(QUESTION, _nodes(b))
