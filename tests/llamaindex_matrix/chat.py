"""The chat engines: two turns each, whole, streamed and awaited."""

from __future__ import annotations

from typing import Any

from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.memory import ChatMemoryBuffer, ChatSummaryMemoryBuffer

from llamaindex_matrix.bench import QUESTION, Bench, scenario

GROUP = "chat engine"
TURNS = (QUESTION, "How much does a city bike cost per week?")


def _memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer(token_limit=3000)


def _simple(b: Bench) -> Any:
    return SimpleChatEngine.from_defaults(llm=b.llm, memory=_memory())


def _context(b: Bench) -> Any:
    return ContextChatEngine.from_defaults(b.index.as_retriever(similarity_top_k=1), llm=b.llm, memory=_memory())


def _condense_question(b: Bench) -> Any:
    llm = b.llm
    engine = b.index.as_query_engine(llm=llm, similarity_top_k=1)
    return CondenseQuestionChatEngine.from_defaults(engine, llm=llm, memory=_memory())


def _condense_plus_context(b: Bench) -> Any:
    retriever = b.index.as_retriever(similarity_top_k=1)
    return CondensePlusContextChatEngine.from_defaults(retriever, llm=b.llm, memory=_memory())


ENGINES = {
    "simple": _simple,
    "context": _context,
    "condense_question": _condense_question,
    "condense_plus_context": _condense_plus_context,
}


def _of_engine(name: str, made: Any) -> None:
    @scenario(GROUP, name)
    async def _chat(b: Bench) -> Any:
        engine = made(b)
        return [str(engine.chat(turn)) for turn in TURNS]

    @scenario(GROUP, f"{name}, async")
    async def _achat(b: Bench) -> Any:
        engine = made(b)
        return [str(await engine.achat(turn)) for turn in TURNS]

    @scenario(GROUP, f"{name}, streamed")
    async def _stream(b: Bench) -> Any:
        engine = made(b)
        return ["".join(engine.stream_chat(turn).response_gen) for turn in TURNS]


for engine_name, engine_made in ENGINES.items():
    _of_engine(engine_name, engine_made)


@scenario(GROUP, "a memory that summarises")
async def _summaries(b: Bench) -> Any:
    llm = b.llm
    memory = ChatSummaryMemoryBuffer.from_defaults(llm=llm, token_limit=60, tokenizer_fn=str.split)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    return [str(engine.chat(turn)) for turn in (*TURNS, "Thank you.")]
