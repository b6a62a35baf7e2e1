"""Agents and their workflows."""

from __future__ import annotations

import json
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool, QueryEngineTool
from pydantic import BaseModel

from llamaindex_matrix.bench import Bench, says, scenario

GROUP = "agent"

says(r"\AObservation:", "Thought: I can answer without using any more tools.\nAnswer: The sum is 3.")
says(r"\AAdd 1 and 2 by thinking", 'Thought: I use a tool.\nAction: add\nAction Input: {"a": 1, "b": 2}')
says(r"\AAdd 1 and 2 by code", "I run it.\n<execute>\nprint(1 + 2)\n</execute>")


class Sum(BaseModel):
    """A sum."""

    total: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(fn=add)


def _memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer(token_limit=6000)


def _run_code(code: str) -> str:
    return f"ran {code}"


def _of_streaming(streaming: bool) -> None:
    how = "streaming" if streaming else "whole"

    @scenario(GROUP, f"FunctionAgent, {how}")
    async def _function(b: Bench) -> Any:
        agent = FunctionAgent(tools=[ADD], llm=b.llm, initial_tool_choice="add", streaming=streaming)
        done = await agent.run("Add 1 and 2.", memory=_memory())
        return str(done), [call.tool_name for call in done.tool_calls]

    @scenario(GROUP, f"ReActAgent, {how}")
    async def _react(b: Bench) -> Any:
        agent = ReActAgent(tools=[ADD], llm=b.llm, streaming=streaming)
        done = await agent.run("Add 1 and 2 by thinking.", memory=_memory())
        return str(done), [call.tool_name for call in done.tool_calls]

    @scenario(GROUP, f"CodeActAgent, {how}")
    async def _code(b: Bench) -> Any:
        agent = CodeActAgent(code_execute_fn=_run_code, llm=b.llm, streaming=streaming)
        done = await agent.run("Add 1 and 2 by code.", memory=_memory())
        return str(done), [call.tool_kwargs for call in done.tool_calls]

    @scenario(GROUP, f"AgentWorkflow of one, {how}")
    async def _workflow(b: Bench) -> Any:
        agent = FunctionAgent(
            name="adder", description="Adds.", tools=[ADD], llm=b.llm, initial_tool_choice="add", streaming=streaming
        )
        return str(await AgentWorkflow(agents=[agent]).run("Add 1 and 2.", memory=_memory()))


for each in (True, False):
    _of_streaming(each)


@scenario(GROUP, "AgentWorkflow that hands off")
async def _hand_off(b: Bench) -> Any:
    llm = b.llm
    first = ReActAgent(name="first", description="Thinks.", tools=[ADD], llm=llm, can_handoff_to=["second"])
    second = FunctionAgent(name="second", description="Adds.", tools=[ADD], llm=llm)
    workflow = AgentWorkflow(agents=[first, second], root_agent="first")
    return str(await workflow.run("Add 1 and 2 by thinking.", memory=_memory()))


@scenario(GROUP, "AgentWorkflow from tools")
async def _from_tools(b: Bench) -> Any:
    workflow = AgentWorkflow.from_tools_or_functions([add], llm=b.llm)
    return str(await workflow.run("Add 1 and 2.", memory=_memory()))


@scenario(GROUP, "an agent with an output class")
async def _output_class(b: Bench) -> Any:
    agent = FunctionAgent(tools=[ADD], llm=b.llm, initial_tool_choice="add", output_cls=Sum)
    return json.dumps((await agent.run("Add 1 and 2.", memory=_memory())).structured_response)


@scenario(GROUP, "an agent with a query engine as its tool")
async def _query_engine(b: Bench) -> Any:
    llm = b.llm
    tool = QueryEngineTool.from_defaults(
        b.index.as_query_engine(llm=llm, similarity_top_k=1), name="handbook", description="The handbook."
    )
    agent = FunctionAgent(tools=[tool], llm=llm, initial_tool_choice="handbook")
    return str(await agent.run("Where is a bike returned?", memory=_memory()))


@scenario(GROUP, "the events of an agent's stream")
async def _events(b: Bench) -> Any:
    agent = FunctionAgent(tools=[ADD], llm=b.llm, initial_tool_choice="add")
    running = agent.run("Add 1 and 2.", memory=_memory())
    said = "".join([event.delta async for event in running.stream_events() if hasattr(event, "delta")])
    return said, str(await running)
